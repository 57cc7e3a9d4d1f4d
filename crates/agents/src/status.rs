//! Whether a machine has an agent, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use woodfrog_types::{Code, Fault};

use crate::catalog::{Install, Launch};
use crate::id::AgentId;
use crate::machine::Machine;

/// How long a look may take, in milliseconds.
const LOOK_MS: u64 = 20_000;

/// Where an agent's program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A launcher or program that somebody put into the machine.
    LocalPath,
    /// Installed from the registry, by [`crate::Agents::install`].
    Registry,
    /// Part of this product.
    Builtin,
}

impl Source {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LocalPath => "local_path",
            Self::Registry => "registry",
            Self::Builtin => "builtin",
        }
    }
}

/// What a machine has of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Which agent.
    pub id: AgentId,
    /// Whether it can be started.
    pub installed: bool,
    /// Whether there is something to log in with. That it is valid is not known.
    pub credentials_available: bool,
    /// What is installed, where that is known.
    pub version: Option<String>,
    /// What would be started.
    pub path: Option<String>,
    /// Where it comes from; set when it is installed.
    pub source: Option<Source>,
    /// Its arguments.
    pub(crate) args: Vec<String>,
}

/// The launchers' directory below the data directory.
pub(crate) const LAUNCHERS: &str = "bin/agent_processes";

/// Says where things are, one a line. What it prints is read by `read` below. A launcher of ours has
/// its version in its second line.
const LOOK: &str = r#"
data="${XDG_DATA_HOME:-$HOME/.local/share}/sandbox-agent"
launcher() {
    file="$data/bin/agent_processes/$1-acp"
    if [ -f "$file" ] && [ -x "$file" ]; then
        version=$(head -c 4096 "$file" 2>/dev/null | sed -n '2s/^# installed by woodfrog: //p' 2>/dev/null)
        [ -z "$version" ] || echo "version $1 $version"
        echo "launcher $1 $file"
    fi
}
program() {
    file=$(command -v "$2" 2>/dev/null) || return 0
    case "$file" in /*) echo "program $1 $2 $file" ;; esac
}
variable() {
    eval "value=\${$2:-}"
    [ -z "$value" ] || echo "credential $1"
}
file() {
    [ ! -s "$HOME/$2" ] || echo "credential $1"
}
"#;

/// What the script said.
#[derive(Debug, Default)]
struct Seen {
    launchers: BTreeMap<String, String>,
    versions: BTreeMap<String, String>,
    /// Path by agent and program.
    programs: BTreeMap<(String, String), String>,
    credentials: BTreeSet<String>,
}

impl Machine {
    /// Looks for some agents at once. `mock` is the command of the built-in agent.
    pub(crate) async fn look(
        &self,
        ids: &[AgentId],
        mock: &[String],
    ) -> Result<Vec<Status>, Fault> {
        let program = mock.first().map_or("", String::as_str);
        let mut request = self.shell(&script(ids), &[program]);
        request.timeout_ms = Some(LOOK_MS);
        let ran = self.run(request).await?;
        if ran.timed_out || !ran.well {
            let what = format!("looking for agents failed ({}): {}", ran.how, ran.stderr);
            return Err(Fault::new(Code::GuestUnresponsive, what));
        }
        let seen = read(&ran.stdout);
        Ok(ids.iter().map(|id| status(*id, &seen, mock)).collect())
    }
}

fn script(ids: &[AgentId]) -> String {
    let mut script = LOOK.to_owned();
    for id in ids {
        let definition = id.definition();
        // Names are ours, of letters, digits, dots, dashes and slashes.
        let _ = writeln!(script, "launcher {id}");
        for launch in definition.launch {
            let _ = writeln!(script, "program {id} {}", launch.program);
        }
        if definition.install == Install::Builtin {
            // The built-in agent's program is the script's argument.
            let _ = writeln!(script, "program {id} \"$1\"");
        }
        for name in definition.credentials {
            let _ = writeln!(script, "variable {id} {name}");
        }
        for name in definition.credential_files {
            let _ = writeln!(script, "file {id} {name}");
        }
    }
    script.push_str("exit 0\n");
    script
}

fn read(output: &str) -> Seen {
    let mut seen = Seen::default();
    for line in output.lines() {
        let Some((word, rest)) = line.split_once(' ') else {
            continue;
        };
        let (id, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let id = id.to_owned();
        match word {
            "launcher" => drop(seen.launchers.insert(id, rest.to_owned())),
            "version" => drop(seen.versions.insert(id, rest.to_owned())),
            "credential" => drop(seen.credentials.insert(id)),
            "program" => {
                if let Some((program, path)) = rest.split_once(' ') {
                    let key = (id, program.to_owned());
                    seen.programs.insert(key, path.to_owned());
                }
            }
            _ => {}
        }
    }
    seen
}

/// A launcher wins over the path.
fn status(id: AgentId, seen: &Seen, mock: &[String]) -> Status {
    let definition = id.definition();
    let name = id.as_str();
    let builtin = definition.install == Install::Builtin;
    let mut status = Status {
        id,
        installed: false,
        credentials_available: builtin || seen.credentials.contains(name),
        version: None,
        path: None,
        source: None,
        args: Vec::new(),
    };
    let on_path = |program: &str| seen.programs.get(&(name.to_owned(), program.to_owned()));
    if let Some(path) = seen.launchers.get(name) {
        status.version = seen.versions.get(name).cloned();
        status.path = Some(path.clone());
        status.source = Some(match status.version {
            Some(_) => Source::Registry,
            None => Source::LocalPath,
        });
    } else if builtin {
        if let Some((program, args)) = mock.split_first()
            && let Some(path) = on_path(program)
        {
            status.version = Some(env!("CARGO_PKG_VERSION").to_owned());
            status.path = Some(path.clone());
            status.source = Some(Source::Builtin);
            status.args = args.to_vec();
        }
    } else {
        let found = definition.launch.iter().find_map(|launch: &Launch| {
            on_path(launch.program).map(|path| (path.clone(), launch.args))
        });
        if let Some((path, args)) = found {
            status.path = Some(path);
            status.source = Some(Source::LocalPath);
            status.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        }
    }
    status.installed = status.path.is_some();
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mock() -> Vec<String> {
        vec!["/usr/lib/guest".to_owned(), "mock-agent".to_owned()]
    }

    #[test]
    fn a_launcher_wins_over_the_path() {
        let seen = read(
            "launcher opencode /home/some body/x-acp\n\
             program opencode opencode /usr/bin/opencode\n\
             credential opencode\nnonsense\n",
        );
        let found = status(AgentId::Opencode, &seen, &mock());
        assert_eq!(found.path.as_deref(), Some("/home/some body/x-acp"));
        assert_eq!(found.source, Some(Source::LocalPath));
        assert!(found.installed && found.credentials_available && found.args.is_empty());
    }

    #[test]
    fn a_launcher_of_ours_has_a_version() {
        let seen = read("version pi 1.2.3\nlauncher pi /d/pi-acp\n");
        let found = status(AgentId::Pi, &seen, &mock());
        assert_eq!(found.version.as_deref(), Some("1.2.3"));
        assert_eq!(found.source, Some(Source::Registry));
    }

    #[test]
    fn the_path_is_searched_in_the_order_of_the_entry() {
        let seen = read(
            "program claude claude-code-acp /b/claude-code-acp\n\
             program claude claude-agent-acp /a/claude-agent-acp\n\
             program gemini gemini /a/gemini\n",
        );
        let claude = status(AgentId::Claude, &seen, &mock());
        assert_eq!(claude.path.as_deref(), Some("/a/claude-agent-acp"));
        let gemini = status(AgentId::Gemini, &seen, &mock());
        assert_eq!(gemini.args, ["--acp"]);
        assert!(!status(AgentId::Codex, &seen, &mock()).installed);
    }

    #[test]
    fn the_mock_is_built_in_where_its_program_is() {
        let seen = read("program mock /usr/lib/guest /usr/lib/guest\n");
        let found = status(AgentId::Mock, &seen, &mock());
        assert_eq!(found.source, Some(Source::Builtin));
        assert_eq!(found.args, ["mock-agent"]);
        assert!(found.credentials_available);
        assert!(!status(AgentId::Mock, &Seen::default(), &mock()).installed);
    }
}
