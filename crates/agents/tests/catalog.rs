//! The registry against what clients of the old server were told.

use std::collections::BTreeSet;

use woodfrog_agents::{AgentId, Install};
use woodfrog_types::{Code, Fault};

/// Features in the order of the wire.
const FEATURES: [&str; 18] = [
    "planMode",
    "permissions",
    "questions",
    "toolCalls",
    "toolResults",
    "textMessages",
    "images",
    "fileAttachments",
    "sessionLifecycle",
    "errorEvents",
    "reasoning",
    "status",
    "commandExecution",
    "fileChanges",
    "mcpTools",
    "streamingDeltas",
    "itemStarted",
    "sharedProcess",
];

#[test]
fn the_capabilities_are_those_that_clients_know() {
    let table = [
        (AgentId::Claude, "·++ +++ ··· ··· ··+ +··"),
        (AgentId::Codex, "++· +++ +++ +++ +++ ++·"),
        (AgentId::Opencode, "·++ +++ +++ +·· ··+ ++·"),
        (AgentId::Amp, "··· +++ ··· +·· ··+ ···"),
        (AgentId::Pi, "··· +++ +·+ ++· ··· ++·"),
        (AgentId::Cursor, "++· +++ +·+ +·· ··· ++·"),
        (AgentId::Mock, "+++ +++ +++ +++ +++ ++·"),
    ];
    for (id, answers) in table {
        let entries = id.definition().capabilities.entries();
        let names: Vec<&str> = entries.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, FEATURES);
        let answers: Vec<bool> = answers
            .chars()
            .filter(|c| *c != ' ')
            .map(|c| c == '+')
            .collect();
        assert_eq!(answers.len(), FEATURES.len());
        for ((name, has), expected) in entries.iter().zip(answers) {
            assert_eq!(*has, expected, "{id} {name}");
        }
    }
}

#[test]
fn names_are_read_back_and_others_refused() {
    for id in AgentId::ALL {
        assert_eq!(id.as_str().parse(), Ok(id));
        assert_eq!(id.definition().id, id);
    }
    for name in ["", "Claude", "claude ", "../mock"] {
        let unknown = name.parse::<AgentId>().unwrap_err();
        let fault = Fault::from(unknown);
        assert_eq!(fault.code, Code::UnsupportedAgent, "{name:?}");
        assert_eq!(fault.code.http_status(), 400);
    }
}

/// The scripts that look for agents take these as words.
#[test]
fn entries_are_plain_words() {
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '@'))
    };
    let mut programs = BTreeSet::new();
    for id in AgentId::ALL {
        let entry = id.definition();
        for launch in entry.launch {
            assert!(
                plain(launch.program) && launch.args.iter().all(|arg| plain(arg)),
                "{id}"
            );
            assert!(programs.insert(launch.program), "{} twice", launch.program);
        }
        assert!(
            entry
                .credentials
                .iter()
                .chain(entry.credential_files)
                .all(|name| plain(name))
        );
        assert_eq!(entry.launch.is_empty(), entry.install == Install::Builtin);
        if let Install::Npm {
            packages, entry, ..
        } = entry.install
        {
            assert!(plain(entry.program) && entry.args.iter().all(|arg| plain(arg)));
            assert!(!packages.is_empty(), "{id}");
            for package in packages {
                assert!(plain(package.name) && plain(package.version), "{id}");
            }
        }
    }
}
