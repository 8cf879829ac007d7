//! CDI: a host's description of a device for containers, as `nvidia-ctk cdi generate` writes it.
//!
//! Layer 1 (documents): YAML or JSON to types, and the edits of one device. What is not known is refused, as the
//! specification asks of its readers: <https://github.com/cncf-tags/container-device-interface>. Hooks are programs
//! of the host's that change a container's root; none is run, and those whose work is known are put down as what they
//! do. Must never leave out what a device needs without saying so.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Versions of the specification whose fields are all known here.
pub const VERSIONS: &[&str] = &["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// The kind of device that a training is given.
pub const NVIDIA: &str = "nvidia.com/gpu";

/// A file of device descriptions.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Version of the specification.
    pub cdi_version: String,
    /// Vendor and class, `nvidia.com/gpu`.
    pub kind: String,
    /// For people.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Devices by name.
    pub devices: Vec<Device>,
    /// What every device needs.
    #[serde(default)]
    pub container_edits: Edits,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// `0`, a UUID, or `all`.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What it needs.
    #[serde(default)]
    pub container_edits: Edits,
}

/// What is changed in a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Edits {
    /// Variables, `KEY=VALUE`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Device nodes.
    #[serde(default)]
    pub device_nodes: Vec<Node>,
    /// Files and folders.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Programs of the host's.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// Groups of the host's that may open the devices.
    #[serde(default)]
    pub additional_gids: Vec<u32>,
    /// Network interfaces, which no box is given.
    #[serde(default)]
    pub net_devices: Vec<serde_json::Value>,
    /// Cache allocation, which no box is given.
    #[serde(default)]
    pub intel_rdt: Option<serde_json::Value>,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// Where it is in the container.
    pub path: String,
    /// Where it is on the host; the same without it.
    #[serde(default)]
    pub host_path: Option<String>,
    /// `c` or `b`; the host's node has its own.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Major number; the host's node has its own.
    #[serde(default)]
    pub major: Option<i64>,
    /// Minor number.
    #[serde(default)]
    pub minor: Option<i64>,
    /// Permission bits.
    #[serde(default)]
    pub file_mode: Option<u32>,
    /// `rwm`.
    #[serde(default)]
    pub permissions: Option<String>,
    /// Owner.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Group.
    #[serde(default)]
    pub gid: Option<u32>,
}

/// A file or folder of the host's.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// Where it lies on the host.
    pub host_path: String,
    /// Where it is seen.
    pub container_path: String,
    /// `ro`, `nosuid`, `rbind`, …
    #[serde(default)]
    pub options: Vec<String>,
    /// `bind`, or nothing.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
}

/// A program of the host's.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// When it is run.
    pub hook_name: String,
    /// The program.
    pub path: String,
    /// Its arguments, its name first.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its variables.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds.
    #[serde(default)]
    pub timeout: Option<i64>,
}

/// What one device needs, with the hooks put down as what they do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// Device nodes: on the host, in the box.
    pub nodes: Vec<(String, String)>,
    /// Files and folders: on the host, in the box.
    pub mounts: Vec<(String, String)>,
    /// Links: what they say, where they stand.
    pub links: Vec<(String, String)>,
    /// Folders in which the loader is to find libraries.
    pub libraries: Vec<String>,
    /// Groups.
    pub groups: Vec<u32>,
    /// What was left undone, a sentence each.
    pub notes: Vec<String>,
}

/// Why a file of devices is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CdiError {
    /// It is no such document.
    #[error("`{file}`: {problem}")]
    Malformed {
        /// Which.
        file: String,
        /// What is wrong, and where.
        problem: String,
    },
    /// Its version has fields that are not known.
    #[error("`{file}`: expected cdiVersion {}, found {found}", VERSIONS.join(", "))]
    Version {
        /// Which.
        file: String,
        /// Its version.
        found: String,
    },
    /// It asks for something that no box gives.
    #[error("device `{device}`: {problem}")]
    Refused {
        /// Of which device.
        device: String,
        /// What it asks for.
        problem: String,
    },
}

impl Spec {
    /// Reads a file of the name, which tells JSON from YAML.
    pub fn parse(file: &str, text: &str) -> Result<Self, CdiError> {
        let malformed = |problem: String| CdiError::Malformed { file: file.to_owned(), problem };
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Versioned {
            cdi_version: String,
        }
        // The version first: a newer one has fields that would only look wrong.
        let version: Versioned = read(file, text).map_err(malformed)?;
        if !VERSIONS.contains(&version.cdi_version.as_str()) {
            return Err(CdiError::Version { file: file.to_owned(), found: version.cdi_version });
        }
        read(file, text).map_err(malformed)
    }

    /// Which device stands for one GPU: the first by number, else what there is.
    pub fn first_device(&self) -> Option<&Device> {
        let named = |name: &str| self.devices.iter().find(|device| device.name == name);
        named("0").or_else(|| named("gpu0")).or_else(|| named("all")).or_else(|| self.devices.first())
    }

    /// What a device needs: the file's own edits, then its.
    pub fn needs(&self, device: &Device) -> Result<Needs, CdiError> {
        let refused = |problem: String| CdiError::Refused { device: format!("{}={}", self.kind, device.name), problem };
        let mut needs = Needs::default();
        for edits in [&self.container_edits, &device.container_edits] {
            needs.add(edits).map_err(refused)?;
        }
        Ok(needs)
    }
}

fn read<T: serde::de::DeserializeOwned>(file: &str, text: &str) -> Result<T, String> {
    if file.ends_with(".json") {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }
}

impl Needs {
    fn add(&mut self, edits: &Edits) -> Result<(), String> {
        if !edits.net_devices.is_empty() {
            return Err("it asks for a network interface, and a box has no network".to_owned());
        }
        if edits.intel_rdt.is_some() {
            self.notes.push("the CDI file asks for cache allocation (intelRdt), which was left out".to_owned());
        }
        for variable in &edits.env {
            let (key, value) = variable.split_once('=').ok_or_else(|| format!("`{}` is no variable", variable.escape_debug()))?;
            self.env.insert(key.to_owned(), value.to_owned());
        }
        for node in &edits.device_nodes {
            if !is_plain(&node.path) || !node.path.starts_with("/dev/") {
                return Err(format!("its node `{}` is not below /dev", node.path.escape_debug()));
            }
            let pair = (node.host_path.clone().unwrap_or_else(|| node.path.clone()), node.path.clone());
            if !self.nodes.contains(&pair) {
                self.nodes.push(pair);
            }
        }
        for mount in &edits.mounts {
            if mount.kind.as_deref().is_some_and(|kind| !["", "bind", "none"].contains(&kind)) {
                return Err(format!("it mounts a file system of type `{}`", mount.kind.as_deref().unwrap_or("").escape_debug()));
            }
            if !is_plain(&mount.container_path) || !is_plain(&mount.host_path) {
                return Err(format!("its mount `{}` has no plain absolute path", mount.container_path.escape_debug()));
            }
            let pair = (mount.host_path.clone(), mount.container_path.clone());
            if !self.mounts.contains(&pair) {
                self.mounts.push(pair);
            }
        }
        for hook in &edits.hooks {
            self.hook(hook)?;
        }
        self.groups.extend(&edits.additional_gids);
        Ok(())
    }

    /// Puts a known hook down as what it does.
    fn hook(&mut self, hook: &Hook) -> Result<(), String> {
        // `nvidia-ctk hook NAME …` or `nvidia-cdi-hook NAME …`
        let words: Vec<&str> = hook.args.iter().skip(1).map(String::as_str).skip_while(|word| *word == "hook").collect();
        let name = words.first().copied().unwrap_or_default();
        let values = |flag: &str| -> Vec<String> {
            let mut values = Vec::new();
            let mut rest = words.iter().skip(1);
            while let Some(word) = rest.next() {
                if let Some(value) = word.strip_prefix(flag).and_then(|rest| rest.strip_prefix('=')) {
                    values.push(value.to_owned());
                } else if *word == flag {
                    values.extend(rest.next().map(|value| (*value).to_owned()));
                }
            }
            values
        };
        match name {
            "create-symlinks" => {
                for link in values("--link") {
                    let pair = link.split_once("::").filter(|(target, at)| !target.is_empty() && is_plain(at));
                    let (target, at) = pair.ok_or_else(|| format!("its hook's link `{}` is none", link.escape_debug()))?;
                    self.links.push((target.to_owned(), at.to_owned()));
                }
            }
            // The names that `ldconfig` would link come with the folders that its cache would know.
            "update-ldcache" | "create-soname-symlinks" => {
                for folder in values("--folder") {
                    if !is_plain(&folder) {
                        return Err(format!("its hook's folder `{}` is none", folder.escape_debug()));
                    }
                    if !self.libraries.contains(&folder) {
                        self.libraries.push(folder);
                    }
                }
            }
            // Folders of devices can be entered, and no node can be made in a box.
            "chmod" | "disable-device-node-modification" => {}
            "enable-cuda-compat" => {
                let note =
                    "the CDI hook enable-cuda-compat was left out: a newer libcuda in the box is not preferred to the host's";
                self.notes.push(note.to_owned());
            }
            "update-application-profile" => {
                let note = "the CDI hook update-application-profile was left out: it is about what a display shows";
                self.notes.push(note.to_owned());
            }
            other => {
                let program = hook.path.escape_debug();
                return Err(format!(
                    "its hook `{program}` {} is not known: no program of the host's is run",
                    other.escape_debug()
                ));
            }
        }
        Ok(())
    }
}

/// An absolute path without a way up or a character that is not shown.
fn is_plain(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|rest| crate::path::ImagePath::new(rest.trim_end_matches('/')).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of what `nvidia-ctk cdi generate` writes, shortened.
    pub(crate) const YAML: &str = r#"---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  deviceNodes:
  - path: /dev/nvidia-uvm
  - path: /dev/nvidiactl
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-ctk
    args:
    - nvidia-ctk
    - hook
    - create-symlinks
    - --link
    - libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so
  - hookName: createContainer
    path: /usr/bin/nvidia-ctk
    args:
    - nvidia-ctk
    - hook
    - update-ldcache
    - --folder
    - /usr/lib/x86_64-linux-gnu
  mounts:
  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15
    containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.550.54.15
    options: [ro, nosuid, nodev, bind]
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /dev/nvidia0
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/nvidia1
"#;

    #[test]
    fn the_real_shape_is_read() {
        let spec = Spec::parse("nvidia.yaml", YAML).unwrap();
        let needs = spec.needs(spec.first_device().unwrap()).unwrap();
        let nodes: Vec<&str> = needs.nodes.iter().map(|(_, at)| at.as_str()).collect();
        assert_eq!(nodes, ["/dev/nvidia-uvm", "/dev/nvidiactl", "/dev/nvidia0"]);
        assert_eq!(needs.links, [("libcuda.so.1".to_owned(), "/usr/lib/x86_64-linux-gnu/libcuda.so".to_owned())]);
        assert_eq!(needs.libraries, ["/usr/lib/x86_64-linux-gnu"]);
        assert_eq!(needs.env["NVIDIA_VISIBLE_DEVICES"], "void");
        assert_eq!(needs.mounts.len(), 1);
    }

    #[test]
    fn json_is_the_same_document() {
        let value: serde_json::Value = serde_saphyr::from_str(YAML).unwrap();
        let json = Spec::parse("nvidia.json", &value.to_string()).unwrap();
        assert_eq!(json, Spec::parse("nvidia.yaml", YAML).unwrap());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let cdi_hook = "args: [nvidia-cdi-hook, create-symlinks, --link=a::/b]";
        for (from, to, says) in [
            ("cdiVersion: 0.5.0", "cdiVersion: 9.0.0", "found 9.0.0"),
            ("kind: nvidia.com/gpu", "kind: nvidia.com/gpu\nsurprise: 1", "surprise"),
            ("  - path: /dev/nvidiactl", "  - path: /dev/nvidiactl\n    colour: green", "colour"),
            ("    - update-ldcache", "    - format-disk", "format-disk"),
            ("  - path: /dev/nvidiactl", "  - path: /etc/nvidiactl", "not below /dev"),
            ("  - path: /dev/nvidiactl", "  - path: /dev/../sda", "not below /dev"),
            ("::/usr/lib/x86_64-linux-gnu/libcuda.so", "::../libcuda.so", "link"),
            ("    options: [ro, nosuid, nodev, bind]", "    type: tmpfs", "tmpfs"),
            ("  env:\n", "  netDevices:\n  - name: eth0\n  env:\n", "network"),
        ] {
            assert!(YAML.contains(from), "{from}");
            let text = YAML.replacen(from, to, 1);
            let read = Spec::parse("nvidia.yaml", &text).and_then(|spec| spec.needs(spec.first_device().unwrap()));
            let error = read.expect_err(to).to_string();
            assert!(error.contains(says), "{to}: {error}");
        }
        // Newer files have more hooks, all known.
        for (hook, notes) in [
            ("args: [nvidia-cdi-hook, update-application-profile]", 1),
            ("args: [nvidia-cdi-hook, enable-cuda-compat, --host-driver-version=580.65.06]", 1),
            ("args: [nvidia-cdi-hook, disable-device-node-modification]", 0),
            ("args: [nvidia-cdi-hook, create-soname-symlinks, --folder, /usr/lib64]", 0),
            ("args: [nvidia-cdi-hook, update-ldcache, --ldconfig-path=/sbin/ldconfig, --folder, /usr/lib64]", 0),
        ] {
            let read: Hook = serde_saphyr::from_str(&format!("hookName: createContainer\npath: /x\n{hook}\n")).unwrap();
            let mut needs = Needs { libraries: vec!["/usr/lib64".into()], ..Needs::default() };
            needs.hook(&read).unwrap();
            assert_eq!((needs.notes.len(), needs.libraries.len()), (notes, 1), "{hook}");
        }
        // The good twin, in the newer hook's form.
        let hook: Hook = serde_saphyr::from_str(&format!("hookName: createContainer\npath: /x\n{cdi_hook}\n")).unwrap();
        let mut needs = Needs::default();
        needs.hook(&hook).unwrap();
        assert_eq!(needs.links, [("a".to_owned(), "/b".to_owned())]);
    }
}
