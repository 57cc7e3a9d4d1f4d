//! Which files of a run are kept, and what they are.

use globset::{GlobBuilder, GlobMatcher};
use woodfrog_types::Fault;
use woodfrog_types::artifact::ArtifactKind;
use woodfrog_types::run::ArtifactPolicy;

use crate::run::text::{TITLE_CHARS_MAX, truncate};

/// Bytes of one file, unless the policy says otherwise.
pub const BYTES_DEFAULT: u64 = 10 << 20;
/// The most that a policy can say.
pub const BYTES_MAX: u64 = 1 << 30;
/// Files of one run, unless the policy says otherwise.
pub const FILES_DEFAULT: u32 = 50;
/// The most that a policy can say.
pub const FILES_MAX: u32 = 1_000;
/// Folders of one policy.
pub const PATHS_MAX: usize = 16;
/// Patterns of one policy.
pub const PATTERNS_MAX: usize = 100;
/// Bytes of a pattern or a folder.
pub const PATTERN_BYTES_MAX: usize = 512;

/// What is left out unless the policy says that it is not: what version control, package managers
/// and caches keep, and what begins with a dot at the top, where programs keep credentials.
pub const EXCLUDED: &[&str] = &[
    "/.*",
    ".git",
    ".hg",
    ".svn",
    "node_modules",
    "__pycache__",
    "*.pyc",
    ".venv",
    "venv",
    ".cache",
    ".npm",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".tox",
    ".gradle",
    ".DS_Store",
];

/// Why a file of a run is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    TooLarge,
    TooMany,
    /// Its path is no text, or too long.
    Name,
    /// It cannot be read.
    Unreadable,
}

impl LeftOut {
    /// A stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::TooMany => "too_many",
            Self::Name => "name",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Bytes of the path of an artifact.
const PATH_BYTES_MAX: usize = 4096;

/// Whether a changed file is kept, by what is known before it is read: its path, if that is text.
pub fn judge(
    policy: &ArtifactPolicy,
    path: &[u8],
    size: u64,
    kept: u32,
) -> Result<String, LeftOut> {
    let text = std::str::from_utf8(path).map_err(|_| LeftOut::Name)?;
    if text.len() > PATH_BYTES_MAX || text.contains('\0') {
        return Err(LeftOut::Name);
    }
    if size > policy.max_bytes {
        return Err(LeftOut::TooLarge);
    }
    if kept >= policy.max_files {
        return Err(LeftOut::TooMany);
    }
    Ok(text.to_owned())
}

/// Refuses a policy that cannot be followed.
pub fn validate(policy: &ArtifactPolicy) -> Result<(), Fault> {
    let refused =
        |field: &str, text: String| Err(Fault::invalid(format!("artifacts.{field}"), text));
    if policy.paths.len() > PATHS_MAX {
        return refused("paths", format!("has more than {PATHS_MAX} folders"));
    }
    for path in &policy.paths {
        let bad = path.is_empty()
            || path.len() > PATTERN_BYTES_MAX
            || path.contains('\0')
            || path.split('/').any(|name| name == "..");
        if bad {
            let text = "each has 1 to 512 bytes and no `..`";
            return refused("paths", text.to_owned());
        }
    }
    if !(1..=BYTES_MAX).contains(&policy.max_bytes) {
        return refused("max_bytes", format!("must be between 1 and {BYTES_MAX}"));
    }
    if !(1..=FILES_MAX).contains(&policy.max_files) {
        return refused("max_files", format!("must be between 1 and {FILES_MAX}"));
    }
    Exclude::new(&policy.exclude).map(drop)
}

/// Patterns of what is left out.
#[derive(Debug, Clone)]
pub struct Exclude {
    names: Vec<GlobMatcher>,
    paths: Vec<GlobMatcher>,
}

impl Exclude {
    /// Reads patterns; see [`ArtifactPolicy::exclude`]. One that begins with a slash begins at the
    /// folder.
    pub fn new(patterns: &[String]) -> Result<Self, Fault> {
        let refused = |text: String| Err(Fault::invalid("artifacts.exclude", text));
        if patterns.len() > PATTERNS_MAX {
            return refused(format!("has more than {PATTERNS_MAX} patterns"));
        }
        let mut all = Self {
            names: Vec::new(),
            paths: Vec::new(),
        };
        for pattern in patterns {
            let text = pattern.trim_end_matches('/');
            if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
                return refused(format!("a pattern has 1 to {PATTERN_BYTES_MAX} bytes"));
            }
            let (list, text) = match text.strip_prefix('/') {
                Some(rest) => (&mut all.paths, rest),
                None if text.contains('/') => (&mut all.paths, text),
                None => (&mut all.names, text),
            };
            let glob = GlobBuilder::new(text).literal_separator(true).build();
            match glob {
                Ok(glob) => list.push(glob.compile_matcher()),
                Err(error) => return refused(format!("`{pattern}`: {}", error.kind())),
            }
        }
        Ok(all)
    }

    /// Whether a file or folder is left out, by its path below the folder that is looked through.
    /// What is below a folder that is left out need not be asked for.
    pub fn leaves_out(&self, below: &[u8]) -> bool {
        let below = String::from_utf8_lossy(below);
        let name = below.rsplit('/').next().unwrap_or_default();
        self.names.iter().any(|glob| glob.is_match(name))
            || self.paths.iter().any(|glob| glob.is_match(&*below))
    }
}

/// What a file is called: its name.
pub fn title(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    truncate(name, TITLE_CHARS_MAX)
}

/// What a file is sent as, by its name.
pub fn content_type(path: &str) -> String {
    let found = mime_guess::from_path(path).first();
    match found {
        Some(found) if found.type_() == "text" => format!("{found}; charset=utf-8"),
        Some(found) => found.to_string(),
        None => "application/octet-stream".to_owned(),
    }
}

/// What sort of file it is, by its name.
pub fn kind(path: &str) -> ArtifactKind {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let extension = extension.to_ascii_lowercase();
    if matches!(extension.as_str(), "log" | "out" | "err") {
        return ArtifactKind::Log;
    }
    if CODE.contains(&extension.as_str()) {
        return ArtifactKind::Code;
    }
    match mime_guess::from_path(path).first() {
        Some(found) if found.type_() == "image" => ArtifactKind::Image,
        Some(_) => ArtifactKind::File,
        None => ArtifactKind::Other,
    }
}

const CODE: &[&str] = &[
    "py", "js", "mjs", "cjs", "jsx", "ts", "tsx", "rs", "go", "c", "h", "cc", "cpp", "hpp", "java",
    "kt", "swift", "rb", "php", "sh", "bash", "sql", "lua", "pl", "r", "cs", "scala", "css", "vue",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> ArtifactPolicy {
        ArtifactPolicy {
            paths: Vec::new(),
            exclude: EXCLUDED.iter().map(|one| (*one).to_owned()).collect(),
            max_bytes: BYTES_DEFAULT,
            max_files: FILES_DEFAULT,
        }
    }

    #[test]
    fn the_defaults_leave_out_what_tools_keep() {
        let exclude = Exclude::new(&policy().exclude).expect("patterns");
        for (path, left_out) in [
            ("a.txt", false),
            ("a/b/c.py", false),
            (".bashrc", true),
            (".config", true),
            ("repo/.github", false),
            ("repo/.git", true),
            ("repo/web/node_modules", true),
            ("node_modules_of_mine", false),
            ("repo/a.pyc", true),
            ("repo/__pycache__", true),
        ] {
            assert_eq!(exclude.leaves_out(path.as_bytes()), left_out, "{path}");
        }
    }

    #[test]
    fn patterns_are_of_names_or_of_paths() {
        let patterns = ["*.o", "/top", "out/*.bin", "**/deep/**"].map(str::to_owned);
        let exclude = Exclude::new(&patterns).expect("patterns");
        for (path, left_out) in [
            ("x/y.o", true),
            ("top", true),
            ("x/top", false),
            ("out/a.bin", true),
            ("out/x/a.bin", false),
            ("x/deep/y", true),
            ("\u{fffd}", false),
        ] {
            assert_eq!(exclude.leaves_out(path.as_bytes()), left_out, "{path}");
        }
        assert!(Exclude::new(&["[".to_owned()]).is_err());
        assert!(Exclude::new(&["/".to_owned()]).is_err());
        assert!(Exclude::new(&vec!["a".to_owned(); PATTERNS_MAX + 1]).is_err());
    }

    #[test]
    fn what_is_left_out_has_a_reason() {
        let policy = policy();
        let judged = |path: &[u8], size, kept| judge(&policy, path, size, kept);
        assert_eq!(judged(b"/a", BYTES_DEFAULT, 49), Ok("/a".to_owned()));
        assert_eq!(judged(b"/a", BYTES_DEFAULT + 1, 0), Err(LeftOut::TooLarge));
        assert_eq!(judged(b"/a", 1, 50), Err(LeftOut::TooMany));
        assert_eq!(judged(b"/\xff", 1, 0), Err(LeftOut::Name));
        assert_eq!(judged(&[b'a'; 5000], 1, 0), Err(LeftOut::Name));
    }

    #[test]
    fn absurd_policies_are_refused() {
        assert!(validate(&policy()).is_ok());
        for bad in [
            ArtifactPolicy {
                max_bytes: 0,
                ..policy()
            },
            ArtifactPolicy {
                max_bytes: u64::MAX,
                ..policy()
            },
            ArtifactPolicy {
                max_files: 0,
                ..policy()
            },
            ArtifactPolicy {
                max_files: FILES_MAX + 1,
                ..policy()
            },
            ArtifactPolicy {
                paths: vec!["a/../..".to_owned()],
                ..policy()
            },
            ArtifactPolicy {
                paths: vec!["a".to_owned(); PATHS_MAX + 1],
                ..policy()
            },
        ] {
            assert!(validate(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn files_are_told_by_their_names() {
        for (path, of_type, of_kind) in [
            (
                "/a/report.html",
                "text/html; charset=utf-8",
                ArtifactKind::File,
            ),
            ("/a/p.PNG", "image/png", ArtifactKind::Image),
            ("/a/data.json", "application/json", ArtifactKind::File),
            (
                "/a/build.log",
                "text/plain; charset=utf-8",
                ArtifactKind::Log,
            ),
            ("/a/noname", "application/octet-stream", ArtifactKind::Other),
        ] {
            assert_eq!(content_type(path), of_type, "{path}");
            assert_eq!(kind(path), of_kind, "{path}");
        }
        assert_eq!(kind("/a/x.rs"), ArtifactKind::Code);
        assert_eq!(title("/a/x.rs"), "x.rs");
        assert_eq!(title(&"ä".repeat(300)).chars().count(), 200);
    }
}
