{
  description = "A reproducible submission packager for machine-learning competitions";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs";

  outputs = { self, nixpkgs }:
    let
      # Images are amd64 only so far, but `pack` itself builds wherever Linux runs.
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      crate = (builtins.fromTOML (builtins.readFile ./Cargo.toml)).package;
    in
    {
      packages = each (pkgs: rec {
        pack = pkgs.rustPlatform.buildRustPackage {
          pname = crate.name;
          version = crate.version;
          src = self;
          cargoLock.lockFile = ./Cargo.lock;
          # The unit tests; those under tests/ want engines, registries and a network.
          cargoTestFlags = [ "--lib" ];
          nativeBuildInputs = [ pkgs.makeWrapper ];
          # uv chooses the Python packages. One that stands in PATH goes first.
          postInstall = ''
            wrapProgram $out/bin/pack --suffix PATH : ${pkgs.lib.makeBinPath [ pkgs.uv ]}
          '';
          meta = {
            description = crate.description;
            license = with pkgs.lib.licenses; [ mit asl20 ];
            mainProgram = "pack";
            platforms = systems;
          };
        };
        default = pack;
      });

      devShells = each (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [ cargo rustc clippy rustfmt uv podman skopeo ];
        };
      });
    };
}
