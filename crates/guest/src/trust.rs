//! Whom programs inside trust.
//!
//! A certificate is put where the tools of distributions look for such additions, so that they
//! keep it when they write their bundles anew, and into the bundles that are there now.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use woodfrog_guest_proto::Trust;

/// Bundles of distributions other than Debian's, whose place is [`Trust::BUNDLE`].
const OTHER_BUNDLES: [&str; 3] = [
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Larger ones are not bundles.
const BUNDLE_BYTES_MAX: u64 = 8 << 20;
const BEGIN: &str = "# woodfrog egress authority: begin\n";
const END: &str = "# woodfrog egress authority: end\n";

/// Adds or removes a certificate. Safe to repeat. Gives what could not be done.
pub(crate) fn apply(root: &Path, trust: &Trust) -> Vec<io::Error> {
    let place = |path: &str| root.join(path.trim_start_matches('/'));
    let own = place(Trust::FILE);
    let mut link = place(Trust::BUNDLE);
    link.set_file_name(&trust.link);
    if trust.link.contains('/') || trust.link.is_empty() {
        return vec![io::ErrorKind::InvalidInput.into()];
    }
    if trust.certificate.is_none() && !own.exists() {
        // The usual case: it was never there.
        return Vec::new();
    }
    let certificate = trust.certificate.as_deref();
    let mut bundles = vec![place(Trust::BUNDLE)];
    bundles.extend(
        OTHER_BUNDLES
            .iter()
            .map(|path| place(path))
            .filter(|path| path.exists()),
    );
    let mut results: Vec<_> = bundles
        .iter()
        .map(|path| in_bundle(path, certificate))
        .collect();
    results.push(alone(&link, certificate));
    // Last, since it says that there may be something to remove.
    results.push(alone(&own, certificate));
    results.into_iter().filter_map(Result::err).collect()
}

/// Removes what is there if it is no plain file: a pipe that somebody inside put there would stop
/// whoever reads or writes it.
pub(crate) fn make_way(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A file with this certificate only.
fn alone(path: &Path, certificate: Option<&str>) -> io::Result<()> {
    make_way(path)?;
    let Some(text) = certificate else {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    };
    if fs::read(path).is_ok_and(|now| now == text.as_bytes()) {
        return Ok(());
    }
    replace(path, text.as_bytes())
}

/// The certificate among others; only what we wrote is touched.
fn in_bundle(path: &Path, certificate: Option<&str>) -> io::Result<()> {
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let before = match fs::metadata(&path) {
        Ok(found) if found.len() > BUNDLE_BYTES_MAX || !found.is_file() => {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(_) => fs::read(&path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let after = bundle(&before, certificate);
    match after == before {
        true => Ok(()),
        false => replace(&path, &after),
    }
}

/// A bundle's content with the certificate, or without it.
fn bundle(before: &[u8], certificate: Option<&str>) -> Vec<u8> {
    let find =
        |from: &[u8], what: &str| from.windows(what.len()).position(|w| w == what.as_bytes());
    let mut content = before.to_vec();
    if let Some(begin) = find(&content, BEGIN)
        && let Some(length) = find(&content[begin..], END)
    {
        content.drain(begin..begin + length + END.len());
    }
    if let Some(text) = certificate {
        if content.last().is_some_and(|last| *last != b'\n') {
            content.push(b'\n');
        }
        let end = if text.ends_with('\n') { "" } else { "\n" };
        content.extend(format!("{BEGIN}{text}{end}{END}").bytes());
    }
    content
}

/// Writes a file as a whole, for everybody to read.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(dir)?;
    let mut beside = PathBuf::from(path).into_os_string();
    beside.push(".woodfrog-new");
    let beside = PathBuf::from(beside);
    make_way(&beside)?;
    fs::write(&beside, content)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o644))?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n";

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("woodfrog-trust-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn read(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.0.join(&path[1..])).ok()
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.0.join(&path[1..]);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn apply(&self, certificate: Option<&str>) {
            let trust = Trust {
                certificate: certificate.map(str::to_owned),
                link: "0a1b2c3d.0".to_owned(),
            };
            let failed = apply(&self.0, &trust);
            assert!(failed.is_empty(), "{failed:?}");
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_added_is_removed_and_the_rest_stays() {
        let root = Root::new("rest");
        root.write(Trust::BUNDLE, "others");
        root.write(OTHER_BUNDLES[0], "more\n");
        root.apply(Some("old\n"));
        root.apply(Some(PEM));
        root.apply(Some(PEM));
        let bundle = root.read(Trust::BUNDLE).unwrap();
        assert_eq!(bundle, format!("others\n{BEGIN}{PEM}{END}"));
        assert!(root.read(OTHER_BUNDLES[0]).unwrap().contains(PEM));
        assert_eq!(root.read(OTHER_BUNDLES[1]), None, "none is made");
        assert_eq!(root.read(Trust::FILE).as_deref(), Some(PEM));
        assert_eq!(root.read("/etc/ssl/certs/0a1b2c3d.0").as_deref(), Some(PEM));
        // What somebody added behind it stays.
        root.write(Trust::BUNDLE, &format!("{bundle}later\n"));
        root.apply(None);
        root.apply(None);
        assert_eq!(root.read(Trust::BUNDLE).as_deref(), Some("others\nlater\n"));
        assert_eq!(root.read(OTHER_BUNDLES[0]).as_deref(), Some("more\n"));
        assert_eq!(root.read(Trust::FILE), None);
        assert_eq!(root.read("/etc/ssl/certs/0a1b2c3d.0"), None);
    }

    #[test]
    fn a_pipe_in_the_way_stops_nothing() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let root = Root::new("pipes");
        let path = root.0.join("bundle.crt");
        for name in ["bundle.crt", "bundle.crt.woodfrog-new"] {
            mknodat(CWD, root.0.join(name), FileType::Fifo, Mode::RWXU, 0).unwrap();
        }
        alone(&path, Some(PEM)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), PEM);
    }

    #[test]
    fn an_image_without_certificates_gets_a_bundle() {
        let root = Root::new("none");
        root.apply(None);
        assert_eq!(root.read(Trust::BUNDLE), None);
        root.apply(Some(PEM));
        assert!(root.read(Trust::BUNDLE).unwrap().contains(PEM));
    }
}
