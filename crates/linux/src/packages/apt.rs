//! apt in a directory of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::InstallError;
use crate::command::{self, Ran};

const TIMEOUT: Duration = Duration::from_secs(300);
/// The end of a program's output that is repeated in an error.
const TAIL: usize = 600;
/// The most archives that are tried.
const MAX_MIRRORS: usize = 4;
/// The distribution's own keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How apt reaches its mirrors goes for us too.
const TRANSPORT: [&str; 5] = [
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::Retries ",
    "Acquire::ForceIPv4 ",
    "Acquire::ForceIPv6 ",
];
/// What an administrator may have told apt through the environment.
const PASSED_ON: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "APT_CONFIG",
];

/// Whether lists past their date are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validity {
    Checked,
    Ignored,
}

/// One archive that the machine's own release comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror(String);

impl Mirror {
    /// apt reads its files itself, whatever their format. Whether an archive is Debian's is
    /// decided later, by the signature.
    pub(super) fn configured() -> Result<Vec<Self>, InstallError> {
        let text = apt(&["apt-get", "update", "--print-uris"], &[])?;
        let codename = codename().unwrap_or_default();
        let mut mirrors: Vec<Self> = Vec::new();
        for mirror in text.lines().filter_map(|line| Self::parse(line, &codename)) {
            if !mirrors.contains(&mirror) && mirrors.len() < MAX_MIRRORS {
                mirrors.push(mirror);
            }
        }
        if mirrors.is_empty() {
            return Err(InstallError::NoMirror);
        }
        Ok(mirrors)
    }

    /// From a line like `'http://host/debian/dists/bookworm/InRelease' name 0`. Security updates
    /// and backports come from suites of other names, and do not count.
    fn parse(line: &str, codename: &str) -> Option<Self> {
        let (uri, _) = line.strip_prefix('\'')?.split_once('\'')?;
        let (site, suite) = uri.strip_suffix("/InRelease")?.rsplit_once("/dists/")?;
        let generic = ["stable", "oldstable", "testing", "unstable", "sid"];
        (suite == codename || generic.contains(&suite)).then(|| Self(site.to_owned()))
    }

    /// Its address, for people: without a password.
    pub(super) fn uri(&self) -> String {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
            _ => self.0.clone(),
        }
    }

    /// Signed by Debian; where its keys are not in their usual place, by those that apt trusts.
    fn line(&self, suite: &str) -> String {
        let keys = match Path::new(KEYRING).exists() {
            true => format!("[signed-by={KEYRING}] "),
            false => String::new(),
        };
        format!("deb {keys}{} {suite} main\n", self.0)
    }
}

/// The release this machine runs.
fn codename() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(line.trim().trim_matches('"').to_owned())
}

/// Why a call of apt failed.
#[derive(Debug)]
pub(super) enum AptError {
    NoTool,
    Failed(String),
}

impl AptError {
    pub(super) fn is_about_age(&self) -> bool {
        match self {
            Self::Failed(output) => {
                output.contains("is expired") || output.contains("is not valid yet")
            }
            Self::NoTool => false,
        }
    }
}

impl From<AptError> for InstallError {
    fn from(error: AptError) -> Self {
        match error {
            AptError::NoTool => Self::NoTool("apt-get"),
            AptError::Failed(output) => Self::Failed {
                what: "apt-get",
                output: tail(&output),
            },
        }
    }
}

fn tail(text: &str) -> String {
    let text = text.trim();
    let from = text.len().saturating_sub(TAIL);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at));
    text[from.unwrap_or(0)..].to_owned()
}

fn apt(argv: &[&str], more: &[String]) -> Result<String, AptError> {
    let passed = PASSED_ON
        .iter()
        .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)));
    // What is given here comes last: of two of one name the program sees the first.
    let env: Vec<String> = more.iter().cloned().chain(passed).collect();
    match command::run_with(argv, &env, TIMEOUT) {
        Ok(Ran {
            code: Some(0),
            output,
        }) => Ok(output),
        Ok(Ran { output, .. }) => Err(AptError::Failed(output)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(AptError::NoTool),
        Err(error) => Err(AptError::Failed(error.to_string())),
    }
}

/// A private apt.
pub(super) struct Apt {
    dir: PathBuf,
    environment: Vec<String>,
}

impl Apt {
    /// Lays it out below `dir`, with one archive and nothing installed.
    pub(super) fn new(dir: &Path, mirror: &Mirror, suite: &str) -> io::Result<Self> {
        for part in [
            "etc/apt.conf.d",
            "etc/preferences.d",
            "etc/sources.list.d",
            "state/lists/partial",
            "cache/archives/partial",
        ] {
            fs::create_dir_all(dir.join(part))?;
        }
        fs::write(dir.join("status"), "")?;
        fs::write(dir.join("etc/sources.list"), mirror.line(suite))?;
        let root = dir.display();
        let own = format!(
            "Dir::Etc \"{root}/etc\";\nDir::State \"{root}/state\";\nDir::Cache \"{root}/cache\";\n\
             Dir::State::status \"{root}/status\";\nDir::Etc::netrc \"/etc/apt/auth.conf\";\n\
             Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";\nDir::Etc::trustedparts \"/etc/apt/trusted.gpg.d\";\n\
             APT::Sandbox::User \"root\";\nAPT::Install-Recommends \"false\";\n\
             Acquire::Languages \"none\";\n"
        );
        let dump = apt(&["apt-config", "dump"], &[]).unwrap_or_default();
        let config = dir.join("apt.conf");
        fs::write(&config, own + &transport(&dump))?;
        Ok(Self {
            dir: dir.to_owned(),
            environment: vec![format!("APT_CONFIG={}", config.display())],
        })
    }

    fn run(&self, validity: Validity, args: &[&str]) -> Result<String, AptError> {
        let mut argv = vec!["apt-get", "-q"];
        if validity == Validity::Ignored {
            argv.extend(["-o", "Acquire::Check-Valid-Until=false"]);
        }
        argv.extend(args);
        apt(&argv, &self.environment)
    }

    pub(super) fn update(&self, validity: Validity) -> Result<(), AptError> {
        let output = self.run(validity, &["update"])?;
        // Some failures are only warnings to apt, as it could go on with an older list.
        match output.contains("W: Failed to fetch") || output.contains("Err:") {
            true => Err(AptError::Failed(output)),
            false => Ok(()),
        }
    }

    /// The files of a package and all that it needs.
    pub(super) fn download(
        &self,
        name: &str,
        validity: Validity,
    ) -> Result<Vec<PathBuf>, AptError> {
        self.run(validity, &["install", "--yes", "--download-only", name])?;
        let told = |error: io::Error| AptError::Failed(error.to_string());
        let entries = fs::read_dir(self.dir.join("cache/archives")).map_err(told)?;
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(told)?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

fn transport(dump: &str) -> String {
    let kept = dump
        .lines()
        .filter(|line| TRANSPORT.iter().any(|key| line.starts_with(key)));
    kept.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_main_suite_of_a_release_names_a_mirror() {
        let parse = |line: &str| Mirror::parse(line, "bookworm");
        let found = parse("'http://u:p@a/debian/dists/bookworm/InRelease' a_InRelease 0 ").unwrap();
        assert_eq!(found.uri(), "http://a/debian");
        let line = found.line("forky");
        assert!(
            line.ends_with(" http://u:p@a/debian forky main\n"),
            "{line}"
        );
        assert!(parse("'http://a/debian/dists/stable/InRelease' a 0 ").is_some());
        for other in [
            "'http://a/debian-security/dists/bookworm-security/InRelease' a 0 ",
            "'http://a/debian/dists/bookworm-updates/InRelease' a 0 ",
            "'http://a/debian/dists/nodistro/InRelease' a 0 ",
            "nonsense",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn age_is_told_from_other_failures() {
        let age = "E: Release file for http://a/InRelease is expired (invalid since 14d).";
        assert!(AptError::Failed(age.to_owned()).is_about_age());
        assert!(!AptError::Failed("E: not signed".to_owned()).is_about_age());
        assert_eq!(tail(&"é".repeat(400)).len(), TAIL);
    }

    #[test]
    fn transport_options_alone_are_taken_over() {
        let dump = "APT::Foo \"1\";\nAcquire::http::Proxy \"http://p:3128\";\n";
        assert_eq!(transport(dump), "Acquire::http::Proxy \"http://p:3128\";\n");
    }
}
