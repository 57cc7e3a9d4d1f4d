//! Build steps, what they do to the configuration, and the keys of their cached layers.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::{ImageConfig, MAX_ENV};
use crate::digest::Digest;

/// One step of a template build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "UPPERCASE")]
pub enum BuildStep {
    /// `user` is `name` or `name:group` (also ids), `mode` octal.
    Copy {
        src: String,
        dst: String,
        user: Option<String>,
        mode: Option<u32>,
    },
    Run {
        command: String,
        user: Option<String>,
    },
    Env {
        vars: Vec<(String, String)>,
    },
    Workdir {
        path: String,
    },
    User {
        name: String,
    },
}

/// A step that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StepError {
    #[error("unknown build step `{0}`")]
    UnknownKind(String),
    #[error("{kind} step: {problem}")]
    Arguments { kind: &'static str, problem: String },
}

impl BuildStep {
    /// From the form in which the E2B SDKs send steps: a word and positional arguments, in which
    /// an empty text means "not given".
    pub fn parse(kind: &str, args: &[String]) -> Result<Self, StepError> {
        let given = |index: usize| args.get(index).filter(|arg| !arg.is_empty()).cloned();
        let need = |kind, index, what: &str| {
            given(index).ok_or_else(|| bad(kind, format!("{what} is missing")))
        };
        match kind.to_ascii_uppercase().as_str() {
            "COPY" => Ok(Self::Copy {
                src: need("COPY", 0, "the source")?,
                dst: need("COPY", 1, "the destination")?,
                user: given(2),
                mode: given(3).map(|mode| parse_mode(&mode)).transpose()?,
            }),
            "RUN" => Ok(Self::Run {
                command: need("RUN", 0, "the command")?,
                user: given(1),
            }),
            "ENV" => parse_env(args),
            "WORKDIR" => Ok(Self::Workdir {
                path: need("WORKDIR", 0, "the path")?,
            }),
            "USER" => Ok(Self::User {
                name: need("USER", 0, "the name")?,
            }),
            _ => Err(StepError::UnknownKind(kind.chars().take(40).collect())),
        }
    }

    /// What the step does to the configuration; `COPY` and `RUN` leave it alone. `home` is the
    /// present user's, from which a relative first `WORKDIR` counts.
    pub fn apply(&self, config: &mut ImageConfig, home: &str) -> Result<(), StepError> {
        match self {
            Self::Copy { .. } | Self::Run { .. } => {}
            Self::Env { vars } => {
                for (name, value) in vars {
                    config.set_env(name, value);
                }
                if config.env.len() > MAX_ENV {
                    return Err(bad("ENV", format!("more than {MAX_ENV} variables")));
                }
            }
            Self::Workdir { path } => config.set_workdir(path, home),
            Self::User { name } => config.user = Some(name.clone()),
        }
        Ok(())
    }
}

/// The name of the state after `step` on top of the state named `parent`. `files_hash` is the
/// content of what a `COPY` brings.
pub fn cache_key(parent: &Digest, step: &BuildStep, files_hash: Option<&str>) -> Digest {
    let parts = ("woodfrog-step-1", parent, step, files_hash);
    // Strings and numbers only: there is nothing in it that JSON cannot say.
    Digest::of(&serde_json::to_vec(&parts).expect("a step is plain data"))
}

fn parse_env(args: &[String]) -> Result<BuildStep, StepError> {
    if args.is_empty() || !args.len().is_multiple_of(2) {
        return Err(bad("ENV", "names and values must come in pairs".to_owned()));
    }
    let vars: Vec<_> = args
        .chunks_exact(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect();
    for (name, value) in &vars {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(bad("ENV", format!("`{name}` is not a variable")));
        }
    }
    Ok(BuildStep::Env { vars })
}

fn parse_mode(text: &str) -> Result<u32, StepError> {
    let mode = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok();
    mode.filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| bad("COPY", format!("`{text}` is not an octal mode")))
}

fn bad(kind: &'static str, problem: String) -> StepError {
    StepError::Arguments { kind, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str, args: &[&str]) -> Result<BuildStep, StepError> {
        BuildStep::parse(
            kind,
            &args.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn steps_parse_and_shape_the_configuration() {
        let mut config = ImageConfig::default();
        for step in [
            parse("ENV", &["A", "1", "B", ""]),
            parse("USER", &["root"]),
            parse("WORKDIR", &["app"]),
            parse("WORKDIR", &["../lib"]),
            parse("RUN", &["true", ""]),
        ] {
            step.unwrap().apply(&mut config, "/root").unwrap();
        }
        assert_eq!(config.env("B"), Some(""));
        assert_eq!(config.user.as_deref(), Some("root"));
        assert_eq!(config.workdir.as_deref(), Some("/root/lib"));
        let copy = parse("COPY", &["a", "/b", "", "0755"]).unwrap();
        assert!(matches!(
            copy,
            BuildStep::Copy {
                user: None,
                mode: Some(0o755),
                ..
            }
        ));
        for (kind, args) in [
            ("COPY", &["a"][..]),
            ("COPY", &["a", "/b", "", "rwx"]),
            ("COPY", &["a", "/b", "", "77777"]),
            ("ENV", &["A"]),
            ("ENV", &["A=B", "c"]),
            ("RUN", &[""]),
            ("FROM", &["x"]),
        ] {
            assert!(parse(kind, args).is_err(), "{kind} {args:?}");
        }
    }

    #[test]
    fn keys_depend_on_everything() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let run = parse("RUN", &["true"]).unwrap();
        let run_as = parse("RUN", &["true", "root"]).unwrap();
        let key = cache_key(&one, &run, None);
        assert_eq!(key, cache_key(&one, &run, None));
        for other in [
            cache_key(&two, &run, None),
            cache_key(&one, &run_as, None),
            cache_key(&one, &run, Some("f")),
        ] {
            assert_ne!(key, other);
        }
    }
}
