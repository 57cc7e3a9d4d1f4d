//! What changed in a layer, told without being led astray by what is in it.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;
use woodfrog_artifacts::{Baseline, Change, Layer, LayerError, changes};

type Seen = (String, Change, u64);

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("u/home/user")).expect("made");
        Self { dir }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join("u").join(path.trim_start_matches('/'))
    }

    fn put(&self, path: &str, text: &str) {
        let at = self.at(path);
        fs::create_dir_all(at.parent().expect("a parent")).expect("made");
        fs::write(at, text).expect("written");
    }

    fn layer(&self) -> Layer {
        Layer::new(fs::File::open(self.at("/")).expect("opened").into())
    }

    fn baseline(&self) -> std::path::PathBuf {
        self.dir.path().join("baseline")
    }

    fn begin(&self, folders: &[&str]) {
        let folders: Vec<String> = folders.iter().map(|one| (*one).to_owned()).collect();
        Baseline::write(&self.baseline(), &self.layer(), &folders, left_out).expect("written");
    }

    fn changed(&self) -> Vec<Seen> {
        let baseline = Baseline::open(&self.baseline()).expect("opened");
        let mut seen = Vec::new();
        let tell = |one: woodfrog_artifacts::Changed| {
            one.file.expect("a file");
            let path = String::from_utf8_lossy(&one.path).into_owned();
            seen.push((path, one.change, one.size));
            ControlFlow::Continue(())
        };
        changes(&self.layer(), baseline, left_out, tell).expect("looked through");
        seen
    }
}

fn left_out(below: &[u8]) -> bool {
    below.rsplit(|byte| *byte == b'/').next() == Some(b"cache")
}

fn created(path: &str, size: u64) -> Seen {
    (path.to_owned(), Change::Created, size)
}

#[test]
fn what_is_new_and_what_is_other_is_told_and_nothing_else() {
    let place = Place::new();
    for name in [
        "same", "other", "longer", "replaced", "a/same", "a-b", "gone",
    ] {
        place.put(&format!("/home/user/{name}"), "1");
    }
    place.put("/etc/hosts", "1");
    place.begin(&["/home/user"]);
    assert_eq!(place.changed(), []);
    // The clock of the kernel moves on between two changes that differ in nothing else.
    let changed = |name: &str| fs::metadata(place.at(name)).expect("there");
    let before = std::os::unix::fs::MetadataExt::ctime_nsec(&changed("/home/user/other"));
    loop {
        place.put("/home/user/other", "2");
        let now = std::os::unix::fs::MetadataExt::ctime_nsec(&changed("/home/user/other"));
        if now != before {
            break;
        }
    }
    place.put("/home/user/longer", "12");
    place.put("/home/user/new", "");
    place.put("/home/user/replaced.tmp", "1");
    fs::rename(
        place.at("/home/user/replaced.tmp"),
        place.at("/home/user/replaced"),
    )
    .expect("renamed");
    fs::remove_file(place.at("/home/user/gone")).expect("removed");
    place.put("/home/user/a/cache/x", "left out");
    place.put("/home/user/a/b/deep", "123");
    place.put("/etc/hosts", "elsewhere");
    let modified = |path: &str, size| (path.to_owned(), Change::Modified, size);
    let expected = [
        created("/home/user/a/b/deep", 3),
        modified("/home/user/longer", 2),
        created("/home/user/new", 0),
        modified("/home/user/other", 1),
        modified("/home/user/replaced", 1),
    ];
    assert_eq!(place.changed(), expected);
}

#[test]
fn no_link_is_followed_and_nothing_but_files_is_opened() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("secret"), "s").expect("written");
    place.begin(&["/home/user", "/linked", "/home/user/linked"]);
    symlink(&outside, place.at("/linked")).expect("linked");
    symlink(&outside, place.at("/home/user/linked")).expect("linked");
    symlink(outside.join("secret"), place.at("/home/user/file")).expect("linked");
    symlink("/", place.at("/home/user/root")).expect("linked");
    let fifo = place.at("/home/user/fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o666.into()).expect("made");
    let socket = place.at("/home/user/socket");
    let _held = std::os::unix::net::UnixListener::bind(socket).expect("bound");
    place.put("/home/user/real", "r");
    assert_eq!(place.changed(), [created("/home/user/real", 1)]);
}

#[test]
fn folders_within_others_are_looked_through_once() {
    let place = Place::new();
    place.begin(&["/home/user/a", "/home", "/home/user", "/nowhere"]);
    place.put("/home/user/a/x", "1");
    place.put("/home/user/b", "1");
    place.put("/nowhere/y", "1");
    let expected = [
        created("/home/user/a/x", 1),
        created("/home/user/b", 1),
        created("/nowhere/y", 1),
    ];
    assert_eq!(place.changed(), expected);
}

#[test]
fn names_that_are_no_text_are_told_too() {
    let place = Place::new();
    place.begin(&["/home/user"]);
    let name = std::ffi::OsStr::from_bytes(b"\xff\n");
    fs::write(place.at("/home/user").join(name), "1").expect("written");
    let seen = place.changed();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].0.contains('\u{fffd}'), "{seen:?}");
}

#[test]
fn without_a_list_of_what_was_there_nothing_is_guessed() {
    let place = Place::new();
    let open = |at: &Path| Baseline::open(at).err();
    let unknown = |error: Option<LayerError>| matches!(error, Some(LayerError::Unknown));
    assert!(unknown(open(&place.baseline())));
    place.put("/home/user/x", "1");
    place.begin(&["/home/user"]);
    let whole = fs::read(place.baseline()).expect("read");
    for length in [0, 4, 10, whole.len() - 1] {
        fs::write(place.baseline(), &whole[..length]).expect("written");
        assert!(unknown(open(&place.baseline())), "{length} bytes");
    }
}

#[test]
fn folders_in_folders_have_a_limit() {
    let place = Place::new();
    place.put(&format!("/home/user/{}x", "d/".repeat(70)), "1");
    let folders = ["/home/user".to_owned()];
    let written = Baseline::write(&place.baseline(), &place.layer(), &folders, left_out);
    assert!(matches!(written, Err(LayerError::TooMuch)), "{written:?}");
    assert!(!place.baseline().exists());
}
