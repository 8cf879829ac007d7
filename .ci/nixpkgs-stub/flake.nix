# Just enough of nixpkgs to evaluate ../../flake.nix where nothing can be fetched: names are checked, nothing
# can be built from it.
{
  outputs = { self }:
    let
      lib = {
        genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
        makeBinPath = builtins.concatStringsSep ":";
        licenses = { mit = "MIT"; asl20 = "Apache-2.0"; };
      };
      stub = system: name: extra: derivation ({ inherit system name; builder = "/bin/sh"; } // extra);
      packages = system:
        let tool = name: stub system name { }; in
        {
          inherit lib;
          mkShell = { packages }: stub system "shell" { inherit packages; };
          rustPlatform.buildRustPackage =
            { pname, version, src, cargoLock, cargoTestFlags, nativeBuildInputs, postInstall, meta }:
            stub system "${pname}-${version}" {
              inherit src cargoTestFlags nativeBuildInputs postInstall;
              lock = cargoLock.lockFile;
            } // { inherit meta; };
        } // lib.genAttrs [ "makeWrapper" "cargo" "rustc" "clippy" "rustfmt" "uv" "podman" "skopeo" ] tool;
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] packages;
    };
}
