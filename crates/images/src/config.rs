//! What an image says about how its programs start, and its stored form.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Version of the stored form of [`Image`]. Readers refuse a newer one.
pub const IMAGE_FORMAT_VERSION: u32 = 1;

/// Environment variables kept per image; more is refused by `ENV` steps.
pub(crate) const MAX_ENV: usize = 1000;

/// How programs start in an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// In the order of first definition, names unique.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// `name`, `uid`, `name:group` or `uid:gid`, as the image says it; `None` means root.
    #[serde(default)]
    pub user: Option<String>,
    /// Absolute path; `None` means the user's home directory.
    #[serde(default)]
    pub workdir: Option<String>,
    #[serde(default)]
    pub entrypoint: Vec<String>,
    #[serde(default)]
    pub cmd: Vec<String>,
}

impl ImageConfig {
    /// Defines or redefines a variable.
    pub fn set_env(&mut self, name: &str, value: &str) {
        match self.env.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.env.push((name.to_owned(), value.to_owned())),
        }
    }

    /// The value of a variable.
    pub fn env(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Changes the working directory; a relative one counts from the present one.
    pub fn set_workdir(&mut self, dir: &str, home: &str) {
        let from = self.workdir.as_deref().unwrap_or(home);
        self.workdir = Some(join_absolute(from, dir));
    }
}

/// A template's root filesystem, as the caller stores it (JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredImage")]
pub struct Image {
    /// [`IMAGE_FORMAT_VERSION`] when written by this program.
    pub version: u32,
    /// Bottom first.
    pub layers: Vec<Digest>,
    pub config: ImageConfig,
}

impl Image {
    /// An image in the present format.
    pub fn new(layers: Vec<Digest>, config: ImageConfig) -> Self {
        Self {
            version: IMAGE_FORMAT_VERSION,
            layers,
            config,
        }
    }
}

#[derive(Deserialize)]
struct StoredImage {
    version: u32,
    layers: Vec<Digest>,
    config: ImageConfig,
}

impl TryFrom<StoredImage> for Image {
    type Error = String;

    fn try_from(stored: StoredImage) -> Result<Self, String> {
        if stored.version == 0 || stored.version > IMAGE_FORMAT_VERSION {
            return Err(format!(
                "image format {} is newer than the {IMAGE_FORMAT_VERSION} this program knows",
                stored.version
            ));
        }
        Ok(Self {
            version: stored.version,
            layers: stored.layers,
            config: stored.config,
        })
    }
}

/// `dir` seen from `from`, absolute, without `.`, `..` and doubled slashes (by text alone).
pub(crate) fn join_absolute(from: &str, dir: &str) -> String {
    let whole = if dir.starts_with('/') {
        dir.to_owned()
    } else {
        format!("{from}/{dir}")
    };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_survives_json_and_newer_formats_are_refused() {
        let mut config = ImageConfig::default();
        config.set_env("A", "1");
        config.set_env("B", "x=y");
        config.set_env("A", "2");
        config.set_workdir("sub/../app", "/home/user");
        let image = Image::new(vec![Digest::of(b"l")], config);
        let json = serde_json::to_string(&image).unwrap();
        assert_eq!(serde_json::from_str::<Image>(&json).unwrap(), image);
        assert_eq!(image.config.env("A"), Some("2"));
        assert_eq!(image.config.workdir.as_deref(), Some("/home/user/app"));
        let newer = json.replace("\"version\":1", "\"version\":2");
        assert!(
            serde_json::from_str::<Image>(&newer)
                .unwrap_err()
                .to_string()
                .contains("newer")
        );
    }
}
