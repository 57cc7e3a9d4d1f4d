//! `docs/reference/configuration.md` is the registry of settings; `UPDATE=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use clap::{CommandFactory, Parser};
use woodfrog_cli::config::Layers;
use woodfrog_cli::config::registry::{SETTINGS, Setting};
use woodfrog_cli::{Cli, Config};

const HEAD: &str = "# Configuration

Generated from the registry of settings: `UPDATE=1 cargo test -p woodfrog-cli --test settings`.

A setting is taken from the first of: the flag of `woodfrog serve`, the environment, the file of `--config FILE`
(`WOODFROG_CONFIG`), the default. Nothing is read again while the server runs. `woodfrog config check` checks,
`woodfrog config show` prints every value with its origin. The file is TOML; a key that is no setting is refused.

```toml
listen = \"127.0.0.1:7070\"
data_dir = \"/var/lib/woodfrog\"

[network]
allow_private = [\"10.1.2.0/24\"]
```

Sizes are written as `512MiB` or `200GiB`, durations as `10s`, `12h` or `30d`.

";

const TAIL: &str = "
## In the environment only
| variable | meaning |
|---|---|
| `WOODFROG_CACHE_DIR` | Where the server keeps the finished `base` root file system, shared by its data directories. Default: `/var/cache/woodfrog` |
| `WOODFROG_URL`, `WOODFROG_API_KEY` | The server and the key that the client commands use |
| `SSL_CERT_FILE` | Private certificate authority that the client commands trust |
| `WOODFROG_REGISTRY_PASSWORD` | Password of `woodfrog template import --registry-user` |
";

/// The flag of `serve` for a setting, if there is one.
fn flag(setting: &Setting) -> Option<String> {
    let command = Cli::command();
    let serve = command.find_subcommand("serve")?;
    let name = setting.key.replace('_', "-");
    let found = serve
        .get_arguments()
        .any(|arg| arg.get_long() == Some(name.as_str()));
    found.then(|| format!("`--{name}`"))
}

fn page() -> String {
    let mut text = HEAD.to_owned();
    for setting in SETTINGS {
        let default = match setting.default {
            "" => "unset".to_owned(),
            value => format!("`{value}`"),
        };
        let flag = flag(setting).unwrap_or_else(|| "none".to_owned());
        let Setting { key, env, doc, .. } = setting;
        let _ = write!(
            text,
            "## `{key}`\n{doc}\n\n- default: {default}\n- environment: `{env}`\n- flag: {flag}\n\n"
        );
    }
    format!("{}\n{TAIL}", text.trim_end())
}

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/configuration.md");
    let text = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).expect("write the reference");
        return;
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == text,
        "docs/reference/configuration.md is not the registry of settings; run with UPDATE=1"
    );
}

#[test]
fn the_example_of_the_reference_is_a_configuration() {
    let example = HEAD
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), example.expect("example")).expect("write");
    let layers = Layers {
        file: Some(file.path().to_path_buf()),
        ..Layers::default()
    };
    let resolved = layers.resolve().expect("the keys are settings");
    let config = Config::from_resolved(&resolved).expect("the values are valid");
    assert_eq!(config.network_allow_private, ["10.1.2.0/24"]);
}

#[test]
fn every_flag_of_serve_is_a_setting() {
    let cli = Cli::try_parse_from(["woodfrog", "serve", "--dev", "--log", "x"]).expect("parses");
    let woodfrog_cli::Command::Serve(serve) = cli.command else {
        panic!("not serve");
    };
    for key in serve.layer().keys() {
        assert!(SETTINGS.iter().any(|setting| setting.key == key), "{key}");
    }
}
