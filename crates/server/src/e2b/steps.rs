//! Build instructions from E2B's loosely typed steps.

use serde_json::Value;
use woodfrog_engine::{StartBuild, TemplateBase, TemplateStep};
use woodfrog_types::limits::BUILD_STEPS_MAX;
use woodfrog_types::{Code, Fault};
use woodfrog_wire::e2b::template::{BuildStart, Step};

type Result<T> = std::result::Result<T, Fault>;

/// The instructions of a build.
pub(super) fn start_build(mut request: BuildStart) -> Result<StartBuild> {
    let steps = request.steps.take().unwrap_or_default();
    if steps.len() > BUILD_STEPS_MAX {
        let message = format!("a build has at most {BUILD_STEPS_MAX} steps");
        return Err(Fault::invalid("steps", message));
    }
    Ok(StartBuild {
        base: base(&mut request)?,
        steps: steps
            .into_iter()
            .enumerate()
            .map(|(at, step)| convert(step).map_err(|fault| within(at, fault)))
            .collect::<Result<_>>()?,
        start_cmd: request.start_cmd.filter(|command| !command.is_empty()),
        ready_cmd: request.ready_cmd.filter(|command| !command.is_empty()),
        force: request.force.unwrap_or(false),
    })
}

fn within(at: usize, fault: Fault) -> Fault {
    let field = format!("steps[{at}]");
    Fault::invalid(field.clone(), format!("{field}: {}", fault.message))
}

fn base(request: &mut BuildStart) -> Result<TemplateBase> {
    let image = request.from_image.take().filter(|text| !text.is_empty());
    let template = request.from_template.take().filter(|text| !text.is_empty());
    match (image, template) {
        (Some(reference), None) => {
            let (username, password) = match request.from_image_registry.take() {
                None | Some(Value::Null) => (None, None),
                Some(registry) => credentials(&registry)?,
            };
            Ok(TemplateBase::Image {
                reference,
                username,
                password,
            })
        }
        (None, Some(name)) => Ok(TemplateBase::Template(name)),
        (None, None) => Err(Fault::invalid(
            "fromImage",
            "one of fromImage and fromTemplate is required",
        )),
        (Some(_), Some(_)) => Err(Fault::invalid(
            "fromImage",
            "fromImage and fromTemplate exclude each other",
        )),
    }
}

fn credentials(registry: &Value) -> Result<(Option<String>, Option<String>)> {
    let field = |name: &str| {
        registry
            .get(name)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    match field("type").as_deref() {
        Some("registry") => Ok((field("username"), field("password"))),
        Some("gcp") => Ok((Some("_json_key".to_owned()), field("serviceAccountJson"))),
        _ => Err(Fault::new(
            Code::Unsupported,
            "fromImageRegistry: only the types `registry` and `gcp` are supported",
        )),
    }
}

fn convert(step: Step) -> Result<TemplateStep> {
    let force = step.force.unwrap_or(false);
    let mut args = step.args.unwrap_or_default();
    match step.kind.to_ascii_uppercase().as_str() {
        "COPY" => copy(args, step.files_hash, force),
        "RUN" => Ok(TemplateStep::Run {
            command: take(&mut args, 0).ok_or_else(|| missing("RUN", "command"))?,
            user: take(&mut args, 1),
            force,
        }),
        "ENV" => env(args),
        "WORKDIR" => Ok(TemplateStep::Workdir {
            path: take(&mut args, 0).ok_or_else(|| missing("WORKDIR", "path"))?,
        }),
        "USER" => Ok(TemplateStep::User {
            name: take(&mut args, 0).ok_or_else(|| missing("USER", "name"))?,
        }),
        other => {
            let shown: String = other.chars().take(32).collect();
            Err(Fault::invalid(
                "type",
                format!("unknown step type `{shown}`"),
            ))
        }
    }
}

fn copy(mut args: Vec<String>, files_hash: Option<String>, force: bool) -> Result<TemplateStep> {
    let octal = |text: String| {
        u32::from_str_radix(&text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| Fault::invalid("args", "COPY: the mode must be octal, at most 7777"))
    };
    Ok(TemplateStep::Copy {
        src: take(&mut args, 0).ok_or_else(|| missing("COPY", "source"))?,
        dst: take(&mut args, 1).ok_or_else(|| missing("COPY", "destination"))?,
        user: take(&mut args, 2),
        mode: take(&mut args, 3).map(octal).transpose()?,
        files_hash: files_hash
            .filter(|hash| !hash.is_empty())
            .ok_or_else(|| missing("COPY", "filesHash"))?,
        force,
    })
}

fn env(args: Vec<String>) -> Result<TemplateStep> {
    if args.is_empty() || !args.len().is_multiple_of(2) {
        let message = "ENV: args must be pairs of a name and a value";
        return Err(Fault::invalid("args", message));
    }
    let mut pairs = Vec::with_capacity(args.len() / 2);
    let mut rest = args.into_iter();
    while let (Some(name), Some(value)) = (rest.next(), rest.next()) {
        pairs.push((name, value));
    }
    Ok(TemplateStep::Env { pairs })
}

/// An argument that is there and not empty.
fn take(args: &mut [String], at: usize) -> Option<String> {
    args.get_mut(at)
        .map(std::mem::take)
        .filter(|arg| !arg.is_empty())
}

fn missing(step: &str, what: &str) -> Fault {
    Fault::invalid("args", format!("{step}: the {what} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<StartBuild> {
        start_build(serde_json::from_str(json).expect("json"))
    }

    #[test]
    fn the_steps_of_the_sdk_are_understood() {
        let build = parse(
            r#"{"fromImage":"debian:12","force":null,"steps":[
                {"type":"COPY","args":["a","/b","","0755"],"filesHash":"ff","force":false},
                {"type":"RUN","args":["true","root"]},
                {"type":"ENV","args":["A","","B","2"]},
                {"type":"WORKDIR","args":["/w"]},{"type":"USER","args":["user"]}],
                "startCmd":"","readyCmd":"exit 0"}"#,
        )
        .expect("valid");
        assert_eq!(build.steps.len(), 5);
        assert!(build.start_cmd.is_none());
        let TemplateStep::Copy { user, mode, .. } = &build.steps[0] else {
            panic!("{:?}", build.steps[0]);
        };
        assert_eq!((user.as_deref(), *mode), (None, Some(0o755)));
        let TemplateStep::Env { pairs } = &build.steps[2] else {
            panic!("{:?}", build.steps[2]);
        };
        assert_eq!(pairs[0], ("A".to_owned(), String::new()));
    }

    #[test]
    fn bad_steps_say_which_one() {
        for (steps, says) in [
            (r#"[{"type":"FLY"}]"#, "steps[0]"),
            (
                r#"[{"type":"USER","args":["u"]},{"type":"ENV","args":["A"]}]"#,
                "steps[1]",
            ),
            (
                r#"[{"type":"COPY","args":["a","b","","9"],"filesHash":"x"}]"#,
                "octal",
            ),
            (r#"[{"type":"COPY","args":["a","b"]}]"#, "filesHash"),
        ] {
            let fault =
                parse(&format!(r#"{{"fromTemplate":"base","steps":{steps}}}"#)).expect_err(steps);
            assert!(fault.message.contains(says), "{}", fault.message);
        }
        assert!(parse("{}").is_err());
        assert!(parse(r#"{"fromImage":"a","fromTemplate":"b"}"#).is_err());
    }
}
