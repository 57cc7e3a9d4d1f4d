use super::*;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use tar::{EntryType, Header};

use crate::vfs;

/// Archives that honest tools refuse to write.
struct Hostile(Vec<u8>);

impl Hostile {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn entry(self, kind: EntryType, path: &str, link: &str, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000);
        self.push(header, data)
    }

    fn push(mut self, mut header: Header, data: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.entry(EntryType::Regular, path, "", data.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let length = (body + 1..)
                .find(|n| n.to_string().len() + body == *n)
                .unwrap();
            write!(data, "{length} {key}=").unwrap();
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(EntryType::XHeader, "pax", "", &data)
    }
}

/// A directory with the target beside something that must stay untouched.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        std::fs::write(dir.path().join("out/secret"), "host").unwrap();
        Self(dir)
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().join("in")
    }

    fn unpack(&self, archive: &[u8]) -> Result<UnpackStats, UnpackError> {
        self.unpack_within(archive, Limits::default())
    }

    fn unpack_within(&self, archive: &[u8], limits: Limits) -> Result<UnpackStats, UnpackError> {
        let how = (Whiteouts::Oci, Owners::Archive);
        let (progress, cancelled) = (Progress::none(), Cancelled::default());
        let result = unpack_into(&self.root(), archive, limits, how, &progress, &cancelled);
        let outside: Vec<_> = std::fs::read_dir(self.0.path().join("out"))
            .unwrap()
            .collect();
        assert_eq!(outside.len(), 1, "something was written outside");
        let secret = self.0.path().join("out/secret");
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "host");
        assert_eq!(std::fs::metadata(&secret).unwrap().nlink(), 1);
        assert_eq!(std::fs::read_dir(self.0.path()).unwrap().count(), 2);
        result.map(|(_, stats)| stats)
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root().join(path)).unwrap()
    }

    fn stat(&self, path: &str) -> std::fs::Metadata {
        std::fs::symlink_metadata(self.root().join(path)).unwrap()
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let dir = vfs::open_dir(&self.root()).unwrap();
        vfs::stat_at(dir, path)
            .unwrap()
            .is_some_and(|stat| vfs::is_whiteout(&stat))
    }

    fn is_opaque(&self, path: &str) -> bool {
        vfs::is_opaque(vfs::open_dir(&self.root().join(path)).unwrap()).unwrap()
    }
}

#[test]
fn ordinary_entries_keep_everything() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("dir/{}", "n".repeat(200));
    let archive = Hostile::new()
        .dir("./dir/")
        .pax(&[
            ("mtime", b"1234.5"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.x", b"y"),
        ])
        .file("dir/ping", "data")
        .entry(EntryType::Link, "dir/hard", "dir/ping", b"")
        .pax(&[("path", long.as_bytes()), ("uid", b"65535")])
        .file("x", "long")
        .symlink("dir/link", "/etc/passwd")
        .entry(EntryType::Fifo, "dir/fifo", "", b"")
        .entry(EntryType::Char, "dir/null", "", b"");
    let place = Place::new();
    let stats = place.unpack(&archive.0).unwrap();
    assert_eq!(
        (
            stats.entries,
            stats.bytes,
            stats.skipped_devices,
            stats.skipped_xattrs
        ),
        (6, 8, 1, 0)
    );
    let ping = place.stat("dir/ping");
    assert_eq!(
        (ping.mode() & 0o7777, ping.uid(), ping.gid(), ping.nlink()),
        (0o4755, 7, 8, 2)
    );
    assert_eq!((ping.mtime(), ping.mtime_nsec()), (1234, 500_000_000));
    assert_eq!(place.stat("dir").mtime(), 1000);
    assert_eq!(
        (place.read(&long).as_str(), place.stat(&long).uid()),
        ("long", 65_535)
    );
    assert_eq!(
        std::fs::read_link(place.root().join("dir/link"))
            .unwrap()
            .to_str(),
        Some("/etc/passwd")
    );
    let attributes =
        vfs::xattrs(std::fs::File::open(place.root().join("dir/ping")).unwrap()).unwrap();
    let names: Vec<_> = attributes
        .iter()
        .map(|(name, _)| name.to_str().unwrap())
        .collect();
    assert_eq!(names, ["security.capability", "user.x"]);
    assert!(!place.root().join("dir/null").exists());
}

#[test]
fn compression_is_recognised_and_the_digest_is_of_the_plain_archive() {
    let plain = Hostile::new().file("f", "data").0;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let packed = [
        plain.clone(),
        gzip.finish().unwrap(),
        zstd::encode_all(&plain[..], 1).unwrap(),
    ];
    for archive in packed {
        let place = Place::new();
        let how = (Whiteouts::Oci, Owners::Archive);
        let (none, never) = (Progress::none(), Cancelled::default());
        let (hash, _) = unpack_into(
            &place.root(),
            &archive[..],
            Limits::default(),
            how,
            &none,
            &never,
        )
        .unwrap();
        assert_eq!(crate::Digest::from_hasher(hash), crate::Digest::of(&plain));
        assert_eq!(place.read("f"), "data");
    }
    let refused = Place::new().unpack(b"\xfd7zXZ\0rest");
    assert!(matches!(refused, Err(UnpackError::Unsupported(_))));
}

#[test]
fn paths_never_lead_out() {
    for path in ["../out/new", "a/../../out/new", "..", "/../out/new"] {
        let refused = Place::new().unpack(&Hostile::new().file(path, "x").0);
        assert!(matches!(refused, Err(UnpackError::Entry { .. })), "{path}");
    }
    // Absolute names are taken from the layer's root.
    let place = Place::new();
    let absolute = place.0.path().join("out/new");
    place
        .unpack(&Hostile::new().file(absolute.to_str().unwrap(), "x").0)
        .unwrap();
    assert_eq!(
        place.read(absolute.strip_prefix("/").unwrap().to_str().unwrap()),
        "x"
    );
}

#[test]
fn symlinks_never_lead_out() {
    let place = Place::new();
    let out = place.0.path().join("out");
    let archive = Hostile::new()
        .symlink("up", "../out")
        .symlink("abs", out.to_str().unwrap())
        .symlink("file", "../out/secret")
        .file("file", "replaced the link");
    place.unpack(&archive.0).unwrap();
    assert_eq!(place.read("file"), "replaced the link");
    for through in ["up/secret", "abs/secret", "up/new/deep"] {
        // Either refused or inside; `unpack` checks the outside.
        let _ = place.unpack(&Hostile::new().file(through, "x").0);
    }
    // A link within the layer is followed, as tools expect of `lib -> usr/lib`.
    let place = Place::new();
    let archive = Hostile::new()
        .dir("usr/lib")
        .symlink("lib", "/usr/lib")
        .file("lib/f", "x");
    place.unpack(&archive.0).unwrap();
    assert_eq!(place.read("usr/lib/f"), "x");
}

#[test]
fn hard_links_never_lead_out() {
    let absolute = Place::new();
    let secret = absolute.0.path().join("out/secret");
    let archives = [
        Hostile::new().entry(EntryType::Link, "l", "../out/secret", b""),
        Hostile::new().entry(EntryType::Link, "l", secret.to_str().unwrap(), b""),
        Hostile::new()
            .symlink("d", "../out")
            .entry(EntryType::Link, "l", "d/secret", b""),
        Hostile::new()
            .dir("d")
            .entry(EntryType::Link, "l", "d", b""),
    ];
    for archive in archives {
        assert!(matches!(
            absolute.unpack(&archive.0),
            Err(UnpackError::Entry { .. })
        ));
    }
    // Linked symlinks stay links: writing to one name replaces it.
    let place = Place::new();
    let archive = Hostile::new()
        .symlink("s", "../out/secret")
        .entry(EntryType::Link, "l", "s", b"")
        .file("l", "mine");
    place.unpack(&archive.0).unwrap();
    assert_eq!(place.read("l"), "mine");
    // A link to itself keeps the file.
    let archive = Hostile::new()
        .file("f", "x")
        .entry(EntryType::Link, "f", "f", b"");
    place.unpack(&archive.0).unwrap();
    assert_eq!(place.read("f"), "x");
}

#[test]
fn bounds_hold() {
    let limits = Limits {
        max_bytes: 10_000,
        max_entries: 3,
    };
    let many = (0..4).fold(Hostile::new(), |archive, n| {
        archive.file(&n.to_string(), "")
    });
    assert!(matches!(
        Place::new().unpack_within(&many.0, limits),
        Err(UnpackError::TooManyEntries(3))
    ));
    let bomb = zstd::encode_all(&Hostile::new().file("f", &"0".repeat(1 << 20)).0[..], 1).unwrap();
    assert!(bomb.len() < 10_000);
    assert!(matches!(
        Place::new().unpack_within(&bomb, limits),
        Err(UnpackError::TooManyBytes(10_000))
    ));
    // Trailing garbage counts too.
    let mut trailing = Hostile::new().file("f", "x").0;
    trailing.resize(20_000, 0);
    assert!(matches!(
        Place::new().unpack_within(&trailing, limits),
        Err(UnpackError::TooManyBytes(_))
    ));
    let header = Hostile::new().entry(EntryType::XHeader, "pax", "", &vec![b'x'; 2 << 20]);
    assert!(matches!(
        Place::new().unpack(&header.0),
        Err(UnpackError::Malformed(_))
    ));
    let cut = Hostile::new().file("f", &"x".repeat(1000)).0;
    assert!(Place::new().unpack(&cut[..1024]).is_err());
    assert!(matches!(
        Place::new().unpack(&[b'x'; 600]),
        Err(UnpackError::Malformed(_) | UnpackError::BadField(_))
    ));
}

#[test]
fn foreign_ids_and_attributes_are_refused_or_dropped() {
    let archive = Hostile::new().pax(&[("uid", b"65536")]).file("f", "");
    let refused = Place::new().unpack(&archive.0);
    assert!(matches!(
        refused,
        Err(UnpackError::IdTooLarge { id: 65_536, .. })
    ));
    let bound_to_host_user = [[1, 0, 0, 3], [0; 4], [0; 4], [0; 4], [0; 4], [9, 0, 0, 0]].concat();
    let archive = Hostile::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.selinux", b"x"),
            ("SCHILY.xattr.security.capability", &bound_to_host_user),
        ])
        .dir("d");
    let place = Place::new();
    assert_eq!(place.unpack(&archive.0).unwrap().skipped_xattrs, 4);
    assert!(!place.is_opaque("d"));
}

#[test]
fn whiteouts_become_overlayfs_ones() {
    let archive = Hostile::new()
        .file(".wh.gone", "")
        .file("etc/.wh..wh..opq", "")
        .file("kept", "x")
        .file(".wh.kept", "")
        .file(".wh.again", "")
        .dir("again")
        .file(".wh.deep", "")
        .file("deep/f", "x")
        .dir("later")
        .file(".wh.later", "")
        .file(".wh..wh.plnk", "");
    let place = Place::new();
    place.unpack(&archive.0).unwrap();
    assert!(place.is_whiteout("gone"));
    for opaque in ["etc", "again", "deep", "later"] {
        assert!(place.is_opaque(opaque), "{opaque}");
    }
    assert_eq!(place.read("kept"), "x");
    assert!(!place.root().join(".wh..wh.plnk").exists());
    for bad in [".wh.", ".wh...", "d/.wh..."] {
        assert!(
            Place::new()
                .unpack(&Hostile::new().file(bad, "").0)
                .is_err(),
            "{bad}"
        );
    }
}
