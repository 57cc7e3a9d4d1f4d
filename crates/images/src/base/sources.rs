//! Which mirrors and options this machine's apt is configured with.

use std::io;
use std::path::Path;

use super::BaseError;

/// Suites of a release that make up the distribution itself.
const SUITE_SUFFIXES: [&str; 4] = ["", "-updates", "-security", "/updates"];

/// One archive.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    options: Vec<(String, String)>,
    uri: String,
    suite: String,
    components: Vec<String>,
}

/// The release this machine runs, `bookworm` for Debian 12.
pub(super) fn codename(root: &Path) -> Result<String, BaseError> {
    let text =
        std::fs::read_to_string(root.join("etc/os-release")).map_err(|source| BaseError::Read {
            what: "/etc/os-release",
            source,
        })?;
    let field = |name: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| value.trim().trim_matches('"').to_owned())
    };
    match (field("ID").as_deref(), field("VERSION_CODENAME")) {
        (Some("debian"), Some(codename)) => Ok(codename),
        (id, _) => Err(BaseError::NotDebian(id.unwrap_or("unknown").to_owned())),
    }
}

/// The distribution's own archives as one-line entries, for mmdebstrap. Third-party ones stay out.
pub(super) fn debian_sources(root: &Path, codename: &str) -> Result<Vec<String>, BaseError> {
    let mut sources = Vec::new();
    for (text, deb822) in files(root).map_err(|source| BaseError::Read {
        what: "/etc/apt",
        source,
    })? {
        let found = if deb822 {
            parse_deb822(&text)
        } else {
            parse_lines(&text)
        };
        sources.extend(found);
    }
    let mut lines: Vec<String> = Vec::new();
    for source in sources.iter().filter(|source| source.is_debian(codename)) {
        let line = source.line();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    if sources
        .iter()
        .any(|source| source.is_debian(codename) && source.suite == codename)
    {
        Ok(lines)
    } else {
        Err(BaseError::NoSources(codename.to_owned()))
    }
}

/// Files with whether they are in deb822 format, in the order apt reads them.
fn files(root: &Path) -> io::Result<Vec<(String, bool)>> {
    let mut found = Vec::new();
    match std::fs::read_to_string(root.join("etc/apt/sources.list")) {
        Ok(text) => found.push((text, false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let parts = match std::fs::read_dir(root.join("etc/apt/sources.list.d")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        parts => parts?,
    };
    let mut paths = parts
        .map(|entry| entry.map(|e| e.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        match path.extension().and_then(|e| e.to_str()) {
            Some("list") => found.push((std::fs::read_to_string(path)?, false)),
            Some("sources") => found.push((std::fs::read_to_string(path)?, true)),
            _ => {}
        }
    }
    Ok(found)
}

impl Source {
    fn is_debian(&self, codename: &str) -> bool {
        let suite = self.suite.trim_end_matches('/');
        let ours = suite
            .strip_prefix(codename)
            .is_some_and(|rest| SUITE_SUFFIXES.contains(&rest));
        let signed = self.options.iter().find(|(key, _)| key == "signed-by");
        ours && self.components.iter().any(|c| c == "main")
            && signed.is_none_or(|(_, by)| by.contains("debian-archive"))
    }

    fn line(&self) -> String {
        let options: Vec<_> = self
            .options
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let options = if options.is_empty() {
            String::new()
        } else {
            format!("[{}] ", options.join(" "))
        };
        format!("deb {options}{} {} main", self.uri, self.suite)
    }
}

fn parse_lines(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t', '[']) {
        return None;
    }
    let rest = rest.trim();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let options = options
        .split_whitespace()
        .filter_map(|option| option.split_once('='))
        .filter(|(key, _)| keep_option(key))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        options,
        uri: words.next()?,
        suite: words.next()?,
        components: words.collect(),
    })
}

fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for stanza in stanzas(text) {
        let field = |name: &str| {
            let found = stanza
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        if field("Enabled").trim() == "no" || !field("Types").split_whitespace().any(|t| t == "deb")
        {
            continue;
        }
        let options: Vec<_> = stanza
            .iter()
            .map(|(key, value)| (key.to_ascii_lowercase(), value.trim()))
            // A key given in full cannot be written on one line; the machine's own keys serve.
            .filter(|(key, value)| keep_option(key) && !value.contains(char::is_whitespace))
            .map(|(key, value)| (key, value.to_owned()))
            .collect();
        for uri in field("URIs").split_whitespace() {
            for suite in field("Suites").split_whitespace() {
                let components = field("Components")
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect();
                let (uri, suite) = (uri.to_owned(), suite.to_owned());
                sources.push(Source {
                    options: options.clone(),
                    uri,
                    suite,
                    components,
                });
            }
        }
    }
    sources
}

fn stanzas(text: &str) -> Vec<Vec<(String, String)>> {
    let mut stanzas = vec![Vec::<(String, String)>::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if let Some(stanza) = stanzas.last_mut() {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = stanza.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((key, value)) = line.split_once(':') {
                stanza.push((key.trim().to_owned(), value.trim().to_owned()));
            }
        }
    }
    stanzas
}

fn keep_option(key: &str) -> bool {
    matches!(
        key,
        "signed-by" | "trusted" | "check-valid-until" | "check-date" | "by-hash"
    )
}

/// From `apt-config dump`: how this machine reaches its mirrors (proxies, timeouts, validity).
pub(super) fn transport_options(dump: &str) -> String {
    const KEPT: [&str; 7] = [
        "Acquire::http::",
        "Acquire::https::",
        "Acquire::Retries ",
        "Acquire::Check-Valid-Until ",
        "Acquire::Check-Date ",
        "Acquire::ForceIPv4 ",
        "Acquire::ForceIPv6 ",
    ];
    let kept = dump
        .lines()
        .filter(|line| KEPT.iter().any(|key| line.starts_with(key)));
    kept.filter(|line| !line.contains("User-Agent"))
        .fold(String::new(), |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn deb822_and_lines_are_understood_and_strangers_left_out() {
        let dir = root(&[
            (
                "etc/apt/sources.list",
                "# x\ndeb [arch=amd64 trusted=yes] http://a/debian bookworm main contrib # y\n\
              deb-src http://a/debian bookworm main\ndeb http://pg/apt bookworm-pgdg main\n\
              deb [signed-by=/etc/docker.gpg] http://d/debian bookworm main\n",
            ),
            (
                "etc/apt/sources.list.d/debian.sources",
                "Types: deb deb-src\nURIs: http://b/debian\n\
              Suites: bookworm bookworm-updates\nComponents: main\n\
              Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
              Enabled: no\nTypes: deb\nURIs: http://off/debian\nSuites: bookworm\nComponents: main\n",
            ),
            (
                "etc/apt/sources.list.d/old.list.disabled",
                "deb http://no/debian bookworm main\n",
            ),
        ]);
        assert_eq!(
            debian_sources(dir.path(), "bookworm").unwrap(),
            [
                "deb [trusted=yes] http://a/debian bookworm main",
                "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://b/debian bookworm main",
                "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://b/debian bookworm-updates main",
            ]
        );
        assert!(matches!(
            debian_sources(dir.path(), "trixie"),
            Err(BaseError::NoSources(_))
        ));
    }

    #[test]
    fn other_distributions_are_refused_by_name() {
        let dir = root(&[("etc/os-release", "NAME=\"Fedora\"\nID=fedora\n")]);
        assert!(matches!(codename(dir.path()), Err(BaseError::NotDebian(id)) if id == "fedora"));
        let dir = root(&[(
            "etc/os-release",
            "ID=debian\nVERSION_CODENAME=\"bookworm\"\n",
        )]);
        assert_eq!(codename(dir.path()).unwrap(), "bookworm");
    }

    #[test]
    fn only_transport_options_pass() {
        let dump = "APT::Foo \"1\";\nAcquire::http::Proxy \"http://p:3128\";\nAcquire::Check-Date \"false\";\n";
        let kept = transport_options(dump);
        assert_eq!(
            kept,
            "Acquire::http::Proxy \"http://p:3128\";\nAcquire::Check-Date \"false\";\n"
        );
    }
}
