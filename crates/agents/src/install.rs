//! Installing an agent inside a machine.

use std::time::Duration;

use woodfrog_guest_client::proto::StartRequest;
use woodfrog_types::{Code, Fault};

use crate::catalog::{Install, Kind, Launch, Node, Package};
use crate::id::AgentId;
use crate::machine::Machine;
use crate::run::Ran;
use crate::status::{LAUNCHERS, Source, Status};

/// Characters of a version that is asked for.
const VERSION_MAX: usize = 64;

/// What is wanted of an installation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstallOptions {
    /// Even when it is there.
    pub reinstall: bool,
    /// The version of the agent's own program.
    pub agent_version: Option<String>,
    /// The version of what speaks the protocol.
    pub agent_process_version: Option<String>,
}

/// What an installation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Nothing had to be done.
    pub already_installed: bool,
    /// What is there.
    pub artifacts: Vec<Artifact>,
}

/// A part of an installed agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub path: String,
    /// Where it comes from.
    pub source: Source,
    /// Its version, where that is known.
    pub version: Option<String>,
}

/// Packages with the versions that are to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) packages: Vec<(Package, String)>,
}

impl Wanted {
    /// The version of the whole: that of the package that is started first, and the others'.
    pub(crate) fn label(&self) -> String {
        let versions: Vec<&str> = self.packages.iter().map(|(_, v)| v.as_str()).collect();
        versions.join("_")
    }

    /// What npm is told.
    pub(crate) fn specs(&self) -> Vec<String> {
        let spec = |(package, version): &(Package, String)| format!("{}@{version}", package.name);
        self.packages.iter().map(spec).collect()
    }
}

impl InstallOptions {
    /// The packages of the agent in the versions asked for.
    pub(crate) fn wanted(&self, id: AgentId) -> Result<Wanted, Fault> {
        let asked = [
            (Kind::NativeAgent, "agentVersion", &self.agent_version),
            (
                Kind::AgentProcess,
                "agentProcessVersion",
                &self.agent_process_version,
            ),
        ];
        let packages = match id.definition().install {
            Install::Npm { packages, .. } => packages,
            Install::Builtin | Install::ByHand(_) => &[],
        };
        for (kind, field, version) in asked {
            let Some(version) = version else { continue };
            if !is_version(version) {
                return Err(Fault::invalid(field, format!("`{version}` is no version")));
            }
            if !packages.iter().any(|package| package.kind == kind) {
                let what = format!("{id} has no {} of its own to choose", kind.as_str());
                return Err(Fault::new(Code::UnsupportedAgent, what).with_field(field));
            }
        }
        let version = |package: &Package| {
            let asked = asked.iter().find(|(kind, ..)| *kind == package.kind);
            let asked = asked.and_then(|(_, _, version)| (*version).clone());
            asked.unwrap_or_else(|| package.version.to_owned())
        };
        let packages = packages.iter().map(|package| (*package, version(package)));
        Ok(Wanted {
            packages: packages.collect(),
        })
    }

    /// Whether what is there does not do.
    pub(crate) fn must_install(&self, status: &Status) -> bool {
        let fixed = status.source == Some(Source::Builtin);
        let asked = self.agent_version.is_some() || self.agent_process_version.is_some();
        let other = asked
            && self
                .wanted(status.id)
                .is_ok_and(|wanted| status.version != Some(wanted.label()));
        !fixed && (self.reinstall || other)
    }
}

/// A version or a tag of the registry; nothing that npm could take for something else.
fn is_version(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    (1..=VERSION_MAX).contains(&text.len())
        && text.chars().all(plain)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

impl Installed {
    /// What was there.
    pub(crate) fn found(status: &Status) -> Self {
        let artifact = |path: &String| Artifact {
            kind: Kind::AgentProcess,
            path: path.clone(),
            source: status.source.unwrap_or(Source::LocalPath),
            version: status.version.clone(),
        };
        Self {
            already_installed: true,
            artifacts: status.path.iter().map(artifact).collect(),
        }
    }

    /// What was installed: the packages' own programs and the launcher.
    pub(crate) fn made(status: &Status, wanted: &Wanted) -> Result<Self, Fault> {
        let launcher = status
            .path
            .as_ref()
            .filter(|_| status.source == Some(Source::Registry));
        let launcher = launcher.ok_or_else(|| failed(status.id, "its launcher is not there"))?;
        let data = launcher
            .strip_suffix(&format!("/{LAUNCHERS}/{}-acp", status.id))
            .unwrap_or_default();
        let modules = format!(
            "{data}/agents/{}/{}/node_modules",
            status.id,
            wanted.label()
        );
        let mut artifacts: Vec<Artifact> = wanted
            .packages
            .iter()
            .filter(|(package, _)| package.kind == Kind::NativeAgent)
            .map(|(package, version)| Artifact {
                kind: Kind::NativeAgent,
                path: format!("{modules}/{}", package.name),
                source: Source::Registry,
                version: Some(version.clone()),
            })
            .collect();
        let process = wanted.packages.last().map(|(_, version)| version.clone());
        artifacts.push(Artifact {
            kind: Kind::AgentProcess,
            path: launcher.clone(),
            source: Source::Registry,
            version: process,
        });
        Ok(Self {
            already_installed: false,
            artifacts,
        })
    }
}

pub(crate) fn failed(id: AgentId, why: &str) -> Fault {
    Fault::new(
        Code::InstallFailed,
        format!("installing {id} failed: {why}"),
    )
}

/// Puts an agent into the data directory: `fill` fills a new folder, which then takes its place
/// under the version's name, and a launcher is renamed into place. A crash leaves the old one.
///
/// Arguments: agent, label, program below `node_modules`, its arguments, Node's oldest major version
/// or 0, what to install.
const INSTALL: &str = r#"
set -eu
agent=$1 label=$2 program=$3 arguments=$4 oldest=$5
shift 5
data="${XDG_DATA_HOME:-$HOME/.local/share}/sandbox-agent"
if [ "$oldest" -gt 0 ]; then
    if ! command -v node >/dev/null; then
        echo "it needs Node $oldest or newer, the machine has none" >&2
        exit 1
    fi
    version=$(node -p 'process.versions.node.split(".")[0]')
    if [ "$version" -lt "$oldest" ]; then
        echo "it needs Node $oldest or newer, the machine has $version" >&2
        exit 1
    fi
fi
agents="$data/agents/$agent"
mkdir -p "$agents" "$data/bin/agent_processes"
rm -rf "$agents"/.new.*
new=$(mktemp -d "$agents/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
fill "$@" >&2
if [ ! -x "$new/node_modules/$program" ]; then
    echo "what was installed has no $program" >&2
    exit 1
fi
rm -rf "$agents/$label"
mv "$new" "$agents/$label"
modules=$(printf %s "$agents/$label/node_modules" | sed "s/'/'\\\\''/g")
launcher="$data/bin/agent_processes/$agent-acp"
# What is started may in its turn start a program that was installed with it.
{
    printf '#!/bin/sh\n# installed by woodfrog: %s\n' "$label"
    printf "modules='%s'\n" "$modules"
    printf 'export PATH="$modules/.bin:$PATH"\nexec "$modules/%s" %s "$@"\n' "$program" "$arguments"
} > "$launcher.new"
chmod 755 "$launcher.new"
mv -f "$launcher.new" "$launcher"
"#;

const NPM: &str = r#"
fill() {
    if ! command -v npm >/dev/null; then
        echo "the machine has no npm; install it, or put the agent into the host's store" >&2
        exit 1
    fi
    # Without a network it gives up within seconds.
    npm install --prefix "$new" --no-audit --no-fund --no-update-notifier --loglevel=error \
        --fetch-retries=1 --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=5000 "$@"
}
"#;

const UNPACK: &str = r#"
fill() {
    if ! command -v tar >/dev/null; then
        echo "the machine has no tar" >&2
        exit 1
    fi
    tar -x -f - --no-same-owner -C "$new"
}
"#;

/// How the new folder is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// By npm, inside the machine.
    Npm,
    /// From an archive on stdin.
    Archive,
}

impl Machine {
    /// The program that installs an agent.
    pub(crate) fn installer(
        &self,
        id: AgentId,
        label: &str,
        fill: Fill,
        specs: &[String],
        timeout: Duration,
    ) -> Result<StartRequest, Fault> {
        let Install::Npm { entry, node, .. } = id.definition().install else {
            return Err(failed(id, "it does not come from a registry"));
        };
        let Launch { program, args } = entry;
        let oldest = match node {
            Node::ToRun(oldest) => oldest,
            Node::ToInstall => 0,
        };
        let (arguments, oldest) = (args.join(" "), oldest.to_string());
        let mut all = vec![id.as_str(), label, program, &arguments, &oldest];
        all.extend(specs.iter().map(String::as_str));
        let fill = match fill {
            Fill::Npm => NPM,
            Fill::Archive => UNPACK,
        };
        let mut request = self.shell(&format!("{fill}{INSTALL}"), &all);
        request.timeout_ms = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        Ok(request)
    }

    /// Installs with the machine's own npm.
    pub(crate) async fn npm(
        &self,
        id: AgentId,
        wanted: &Wanted,
        timeout: Duration,
    ) -> Result<(), Fault> {
        let request = self.installer(id, &wanted.label(), Fill::Npm, &wanted.specs(), timeout)?;
        outcome(id, &self.run(request).await?, timeout)
    }
}

/// The installer's end.
pub(crate) fn outcome(id: AgentId, ran: &Ran, timeout: Duration) -> Result<(), Fault> {
    if ran.timed_out {
        let why = format!(
            "it took longer than {} s\n{}",
            timeout.as_secs(),
            ran.stderr
        );
        return Err(failed(id, &why));
    }
    if !ran.well {
        return Err(failed(id, &format!("{}\n{}", ran.how, ran.stderr)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_checked_before_they_reach_npm() {
        for (text, well) in [
            ("1.2.3", true),
            ("1.0.0-rc.1+build_5", true),
            ("latest", true),
            ("", false),
            ("-g", false),
            ("1.0 --force", false),
            ("../x", false),
            ("npm:other@1", false),
        ] {
            let options = InstallOptions {
                agent_version: Some(text.to_owned()),
                ..InstallOptions::default()
            };
            assert_eq!(options.wanted(AgentId::Opencode).is_ok(), well, "{text:?}");
        }
    }

    #[test]
    fn versions_go_to_the_package_of_their_kind() {
        let options = InstallOptions {
            agent_version: Some("9.9.9".to_owned()),
            ..InstallOptions::default()
        };
        let wanted = options.wanted(AgentId::Pi).ok();
        let specs = wanted.map(|wanted| wanted.specs()).unwrap_or_default();
        assert_eq!(
            specs,
            ["@earendil-works/pi-coding-agent@9.9.9", "pi-acp@0.0.34"]
        );
        let refused = options
            .wanted(AgentId::Claude)
            .err()
            .map(|fault| fault.code);
        assert_eq!(refused, Some(Code::UnsupportedAgent));
        assert!(options.wanted(AgentId::Mock).is_err());
    }
}
