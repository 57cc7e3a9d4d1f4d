#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test file uses some"
)]

use std::collections::HashMap;
use std::io::Write;
use woodfrog_images::Digest;

/// A tar archive of files; a name ending in `/` is a directory, `name -> target` a symlink.
pub(crate) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(1);
        if let Some((name, target)) = name.split_once(" -> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, name, target).unwrap();
        } else {
            if name.ends_with('/') {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
            }
            header.set_size(content.len() as u64);
            builder
                .append_data(&mut header, name, content.as_bytes())
                .unwrap();
        }
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image of two layers as blobs by digest, and the digest of its index.
pub(crate) struct TestImage {
    pub(crate) blobs: HashMap<String, Vec<u8>>,
    pub(crate) index: Vec<u8>,
    pub(crate) manifest: String,
    pub(crate) layers: Vec<String>,
    pub(crate) diff_ids: Vec<Digest>,
}

impl TestImage {
    pub(crate) fn new() -> Self {
        let mut image = Self {
            blobs: HashMap::new(),
            index: Vec::new(),
            manifest: String::new(),
            layers: Vec::new(),
            diff_ids: Vec::new(),
        };
        let plain = [
            tar(&[
                ("etc/", ""),
                ("etc/passwd", "root:x:0:0::/root:/bin/sh"),
                ("gone", "x"),
            ]),
            tar(&[("etc/motd", "hello"), (".wh.gone", "")]),
        ];
        let packed = [gzip(&plain[0]), zstd::encode_all(&plain[1][..], 1).unwrap()];
        image.diff_ids = plain.iter().map(|bytes| Digest::of(bytes)).collect();
        image.layers = packed
            .iter()
            .map(|bytes| image.add(bytes.clone()))
            .collect();
        let diff_ids: Vec<_> = image.diff_ids.iter().map(Digest::to_oci).collect();
        let config = serde_json::json!({
            "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "config": {"Env": ["PATH=/bin", "A=b=c"], "User": "1000:1000", "WorkingDir": "/srv",
                       "Entrypoint": ["/init"], "Cmd": ["run", "it"]},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let (config_size, config) = (config.len(), image.add(config));
        let kinds = ["gzip", "zstd"];
        let layers: Vec<_> = image
            .layers
            .iter()
            .zip(kinds)
            .map(|(digest, kind)| {
                serde_json::json!({
                    "mediaType": format!("application/vnd.oci.image.layer.v1.tar+{kind}"),
                    "digest": digest, "size": image.blobs[digest].len(),
                })
            })
            .collect();
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size},
            "layers": layers,
        })).unwrap();
        let size = manifest.len();
        image.manifest = image.add(manifest);
        image.index = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.manifest, "size": size,
                "platform": {"os": "linux", "architecture": "amd64"},
            }],
        })).unwrap();
        image
    }

    fn add(&mut self, bytes: Vec<u8>) -> String {
        let digest = Digest::of(&bytes).to_oci();
        self.blobs.insert(digest.clone(), bytes);
        digest
    }
}
