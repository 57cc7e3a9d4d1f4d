//! Volumes on a real file system.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use woodfrog_volumes::{
    Attributes, EntryKind, Parents, Places, Replace, Tree, VolumeError, Volumes,
};

struct World {
    dir: tempfile::TempDir,
    volumes: Volumes,
    tree: Tree,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(dir.path().join("volumes"));
        let tree = volumes.tree("one", None).unwrap();
        Self { dir, volumes, tree }
    }

    fn content(&self) -> std::path::PathBuf {
        self.dir.path().join("volumes/content/one")
    }

    fn put(&self, path: &str, bytes: &[u8]) -> Result<woodfrog_volumes::Entry, VolumeError> {
        let set = Attributes::default();
        let upload = self
            .volumes
            .upload(&self.tree, path, set, Parents::Needed, Replace::Yes);
        let mut upload = upload?;
        upload.write(bytes)?;
        upload.commit(&self.tree)
    }

    fn get(&self, path: &str) -> Result<String, VolumeError> {
        let (mut file, entry) = self.tree.read(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(entry.size, text.len() as u64);
        Ok(text)
    }
}

fn nothing_in(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

#[test]
fn files_are_written_read_listed_and_removed() {
    let world = World::new();
    let (set, made) = (Attributes::default(), Parents::Made);
    let dir = world.tree.make_dir("/a/b", set, made).unwrap();
    assert_eq!((dir.kind, &*dir.path), (EntryKind::Directory, "/a/b"));
    world.tree.make_dir("/a/b", set, made).unwrap();
    let again = world.tree.make_dir("/a/b", set, Parents::Needed);
    assert!(matches!(again, Err(VolumeError::Exists(_))));
    let orphan = world.tree.make_dir("/x/y", set, Parents::Needed);
    assert!(matches!(orphan, Err(VolumeError::NotFound(_))));

    let file = world.put("a/b/file", b"one").unwrap();
    assert_eq!((&*file.name, &*file.path), ("file", "/a/b/file"));
    assert_eq!((file.size, file.mode), (3, 0o644));
    world.put("a/b/file", b"other").unwrap();
    assert_eq!(world.get("/a/b/file").unwrap(), "other");
    let list = |path: &str, depth: u32| -> Vec<String> {
        let entries = world.tree.list(path, depth).unwrap();
        entries.into_iter().map(|entry| entry.path).collect()
    };
    assert_eq!(list("/", 1), ["/a"]);
    assert_eq!(list("/", 0), ["/a"]);
    assert_eq!(list("/", 3), ["/a", "/a/b", "/a/b/file"]);
    assert_eq!(list("a", 1), ["/a/b"]);
    assert!(world.tree.list("/", 65).is_err());
    assert!(matches!(
        world.tree.list("/a/b/file", 1),
        Err(VolumeError::NotADirectory(_))
    ));
    assert!(matches!(world.get("/a"), Err(VolumeError::IsADirectory(_))));
    assert!(matches!(
        world.put("/a", b""),
        Err(VolumeError::IsADirectory(_))
    ));

    world.volumes.remove(&world.tree, "/a").unwrap();
    assert!(matches!(
        world.tree.stat("/a"),
        Err(VolumeError::NotFound(_))
    ));
    assert!(matches!(
        world.volumes.remove(&world.tree, "/a"),
        Err(VolumeError::NotFound(_))
    ));
    assert!(world.volumes.remove(&world.tree, "/").is_err());
    assert!(nothing_in(&world.dir.path().join("volumes/trash")));
}

#[test]
fn attributes_are_set_within_bounds() {
    let world = World::new();
    world.put("f", b"x").unwrap();
    let set = Attributes {
        uid: Some(1000),
        gid: Some(1001),
        mode: Some(0o600),
    };
    let entry = world.tree.set("f", set).unwrap();
    assert_eq!((entry.uid, entry.gid, entry.mode), (1000, 1001, 0o600));
    let meta = std::fs::metadata(world.content().join("f")).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (1000, 0o600));
    for bad in [
        Attributes {
            mode: Some(0o4755),
            ..Attributes::default()
        },
        Attributes {
            uid: Some(65_536),
            ..Attributes::default()
        },
    ] {
        let refused = world.tree.set("f", bad);
        assert!(matches!(refused, Err(VolumeError::Invalid(_))));
        let refused = world.tree.make_dir("d", bad, Parents::Needed);
        assert!(matches!(refused, Err(VolumeError::Invalid(_))));
    }
    assert!(world.tree.stat("d").is_err());
}

#[test]
fn nothing_leads_out() {
    let world = World::new();
    let outside = world.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "x").unwrap();
    let content = world.content();
    symlink(&outside, content.join("absolute")).unwrap();
    symlink("../../../outside", content.join("relative")).unwrap();
    symlink("/proc/self/root", content.join("magic")).unwrap();
    std::fs::create_dir(content.join("real")).unwrap();
    symlink("real", content.join("inner")).unwrap();

    for link in ["absolute", "relative", "magic"] {
        let path = format!("{link}/secret");
        assert!(world.get(&path).is_err(), "{path}");
        assert!(world.put(&path, b"new").is_err(), "{path}");
        assert!(world.tree.stat(&path).is_err(), "{path}");
        assert!(world.tree.list(link, 1).is_err(), "{link}");
        assert!(world.tree.set(&path, Attributes::default()).is_err());
        let set = Attributes {
            mode: Some(0o777),
            ..Attributes::default()
        };
        assert!(world.tree.set(link, set).is_err(), "{link}");
        assert!(world.volumes.remove(&world.tree, &path).is_err(), "{path}");
        let made =
            world
                .tree
                .make_dir(&format!("{link}/new"), Attributes::default(), Parents::Made);
        assert!(made.is_err(), "{link}");
        assert_eq!(world.tree.stat(link).unwrap().kind, EntryKind::Symlink);
    }
    for path in ["../one/real", "real/../../two", "..", "/../x"] {
        assert!(
            matches!(world.tree.stat(path), Err(VolumeError::Invalid(_))),
            "{path}"
        );
    }
    world.put("inner/f", b"in").unwrap();
    assert_eq!(world.get("real/f").unwrap(), "in");
    // A link is removed itself, and a list does not walk through it.
    world.volumes.remove(&world.tree, "absolute").unwrap();
    assert_eq!(world.tree.list("/", 5).unwrap().len(), 5);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(std::fs::metadata(&outside).unwrap().mode() & 0o777, 0o755);
}

#[test]
fn an_upload_is_whole_or_not_there() {
    let world = World::new();
    let (set, replace) = (Attributes::default(), Replace::No);
    let begin = |path: &str| {
        world
            .volumes
            .upload(&world.tree, path, set, Parents::Needed, replace)
    };
    let incoming = world.dir.path().join("volumes/incoming");
    let mut upload = begin("f").unwrap();
    upload.write(b"half").unwrap();
    assert!(world.tree.stat("f").is_err());
    assert!(!nothing_in(&incoming));
    drop(upload);
    assert!(nothing_in(&incoming));

    let (first, second) = (begin("f").unwrap(), begin("f").unwrap());
    first.commit(&world.tree).unwrap();
    assert!(matches!(
        second.commit(&world.tree),
        Err(VolumeError::Exists(_))
    ));
    assert!(matches!(begin("f"), Err(VolumeError::Exists(_))));
    assert!(matches!(begin("no/f"), Err(VolumeError::NotFound(_))));
    assert!(nothing_in(&incoming));
}

#[test]
fn volumes_go_and_leftovers_are_removed() {
    let world = World::new();
    world.put("f", b"x").unwrap();
    let other = world.volumes.tree("two", None).unwrap();
    world.volumes.delete("two").unwrap();
    world.volumes.delete("two").unwrap();
    assert!(other.stat("f").is_err());
    world.volumes.tree("three", None).unwrap();
    let root = world.dir.path().join("volumes");
    std::fs::write(root.join("incoming-x"), "").unwrap();
    for area in ["incoming", "trash"] {
        std::fs::create_dir_all(root.join(area)).unwrap();
        std::fs::write(root.join(area).join("left"), "x").unwrap();
    }
    let known = BTreeSet::from(["one".to_owned()]);
    world.volumes.tidy(&known).unwrap();
    let left: Vec<_> = std::fs::read_dir(root.join("content"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["one"]);
    assert!(nothing_in(&root.join("incoming")) && nothing_in(&root.join("trash")));
    assert_eq!(world.get("f").unwrap(), "x");
    Volumes::new(root.join("none")).tidy(&known).unwrap();
}

/// Places that are plain directories, which know their limits and keep none.
#[derive(Debug)]
struct Directories;

impl Places for Directories {
    fn make(&self, path: &Path, bytes: u64) -> std::io::Result<()> {
        if bytes == 0 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        std::fs::create_dir(path)
    }

    fn used(&self, path: &Path) -> std::io::Result<u64> {
        std::fs::metadata(path).map(|_| 7)
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        std::fs::remove_dir_all(path)
    }
}

#[test]
fn all_of_a_volume_with_a_limit_is_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("volumes"), dir.path().join("pool"));
    Volumes::new(&old).create("old", None).unwrap();
    let refused = Volumes::new(&old).create("x", Some(1));
    assert!(
        matches!(refused, Err(VolumeError::Invalid(_))),
        "{refused:?}"
    );
    let volumes = Volumes::new(&old).with_places(&new, Arc::new(Directories));
    for _ in 0..2 {
        volumes.create("new", Some(1)).unwrap();
        let tree = volumes.tree("new", Some(1)).unwrap();
        let (set, parents) = (Attributes::default(), Parents::Made);
        let replace = Replace::Yes;
        let mut upload = volumes
            .upload(&tree, "/a/b", set, parents, replace)
            .unwrap();
        upload.write(b"text").unwrap();
        assert_eq!(
            std::fs::read_dir(new.join("new/incoming")).unwrap().count(),
            1
        );
        upload.commit(&tree).unwrap();
        assert_eq!(
            std::fs::read(volumes.path("new").join("a/b")).unwrap(),
            b"text"
        );
        volumes.remove(&tree, "/a").unwrap();
        assert!(nothing_in(&new.join("new/trash")) && nothing_in(&volumes.path("new")));
    }
    assert_eq!(volumes.path("new"), new.join("new/new"));
    assert_eq!(volumes.path("old"), old.join("content/old"));
    assert_eq!((volumes.used("new"), volumes.used("old")), (Some(7), None));
    assert!(volumes.create("full", Some(0)).is_err());
    let names = |dir: &Path| -> BTreeSet<_> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(&new), BTreeSet::from(["new".into()]));

    // What a server before left half done.
    std::fs::create_dir_all(new.join(".new-1/x")).unwrap();
    std::fs::write(new.join("new/incoming/half"), b"").unwrap();
    std::fs::create_dir(new.join("new/trash/half")).unwrap();
    volumes.create("gone", Some(1)).unwrap();
    let known = BTreeSet::from(["new".to_owned(), "old".to_owned()]);
    volumes.tidy(&known).unwrap();
    assert_eq!(names(&new), BTreeSet::from(["new".into()]));
    assert!(nothing_in(&new.join("new/incoming")) && nothing_in(&new.join("new/trash")));
    assert!(volumes.path("old").is_dir());
    // One whose content is lost gets its limit again.
    std::fs::remove_dir_all(new.join("new")).unwrap();
    volumes.tree("new", Some(1)).unwrap();
    assert!(new.join("new/new").is_dir());
    volumes.delete("new").unwrap();
    assert!(nothing_in(&new));
}
