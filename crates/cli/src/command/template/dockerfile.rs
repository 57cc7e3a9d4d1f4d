//! Dockerfiles: the instructions that make sense for a template. Everything else is refused with
//! its line, since a template that silently lacks something is worse than none.

mod recipe;
mod text;

use std::collections::BTreeMap;

use recipe::Builder;
pub(super) use recipe::{CopyStep, Recipe, Step};

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub(super) struct ParseError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Reads a Dockerfile; `arguments` are the values given for its ARGs.
pub(super) fn parse(
    source: &str,
    arguments: &BTreeMap<String, String>,
) -> Result<Recipe, ParseError> {
    let mut builder = Builder::new(arguments);
    for (line, text) in text::logical_lines(source) {
        builder
            .instruction(&text)
            .map_err(|message| ParseError { line, message })?;
    }
    builder.finish().map_err(|message| ParseError {
        line: source.lines().count().max(1),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(source: &str) -> Vec<Step> {
        let recipe = parse(source, &BTreeMap::new()).expect(source);
        recipe.steps
    }

    fn refused(source: &str) -> ParseError {
        parse(source, &BTreeMap::new()).expect_err(source)
    }

    fn run(command: &str) -> Step {
        Step::Run(command.to_owned())
    }

    #[test]
    fn a_usual_file_becomes_steps() {
        let recipe = parse(
            "# syntax=docker/dockerfile:1\n\
             ARG VERSION=12\n\
             FROM debian:${VERSION} AS only\n\
             ENV A=1 B=\"two words\" C=$A\n\
             WORKDIR /app\n\
             COPY --chown=user:user --chmod=755 a.txt b/ ./\n\
             RUN apt-get update && \\\n    # a remark\n    apt-get install -y git\n\
             USER user\n\
             EXPOSE 80\n\
             ENTRYPOINT [\"python3\", \"-m\"]\n\
             CMD [\"http.server\", \"80 81\"]\n",
            &BTreeMap::new(),
        )
        .expect("parses");
        assert_eq!(recipe.from, "debian:12");
        assert_eq!(
            recipe.start_cmd.as_deref(),
            Some("python3 -m http.server '80 81'")
        );
        let copy = |source: &str| {
            Step::Copy(CopyStep {
                source: source.to_owned(),
                destination: "./".to_owned(),
                owner: Some("user:user".to_owned()),
                mode: Some("755".to_owned()),
            })
        };
        let pairs = [("A", "1"), ("B", "two words"), ("C", "")];
        assert_eq!(
            recipe.steps,
            [
                Step::User("root".to_owned()),
                Step::Workdir("/".to_owned()),
                Step::Env(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()),
                Step::Workdir("/app".to_owned()),
                copy("a.txt"),
                copy("b/"),
                run("apt-get update && apt-get install -y git"),
                Step::User("user".to_owned()),
            ]
        );
        assert_eq!(recipe.ignored, ["EXPOSE"]);
    }

    #[test]
    fn it_ends_as_e2b_s_clients_expect() {
        let steps = steps("FROM x\nRUN true\n");
        assert_eq!(steps[2], run("true"));
        assert_eq!(steps[3], Step::User("user".to_owned()));
        assert_eq!(steps[4], Step::Workdir("/home/user".to_owned()));
    }

    #[test]
    fn arguments_and_environment_are_substituted() {
        let given = BTreeMap::from([("TAG".to_owned(), "given".to_owned())]);
        let recipe = parse(
            "ARG TAG=old\nFROM img:$TAG\nARG TAG\nARG OTHER=\"it's\"\nENV P=/opt/${TAG}\n\
             WORKDIR $P/${NONE:-x}\nRUN echo $TAG\nRUN [\"echo\", \"$P\"]\n",
            &given,
        )
        .expect("parses");
        assert_eq!(recipe.from, "img:given");
        assert_eq!(recipe.steps[3], Step::Workdir("/opt/given/x".to_owned()));
        let exports = "export OTHER='it'\\''s' TAG=given\n";
        assert_eq!(recipe.steps[4], run(&format!("{exports}echo $TAG")));
        assert_eq!(recipe.steps[5], run(&format!("{exports}echo '$P'")));
        let unknown = BTreeMap::from([("NOPE".to_owned(), String::new())]);
        assert!(parse("FROM x\n", &unknown).is_err());
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_line() {
        for (source, line, says) in [
            ("RUN true\n", 1, "FROM"),
            ("# nothing\n", 1, "FROM"),
            ("FROM a\n\nFROM b\n", 3, "one FROM"),
            ("FROM a\nADD x /y\n", 2, "COPY"),
            ("FROM a\nCOPY --from=b x /y\n", 2, "--from"),
            (
                "FROM a\nRUN --mount=type=cache,target=/x true\n",
                2,
                "--mount",
            ),
            ("FROM a\nRUN <<EOF\ntrue\nEOF\n", 2, "<<"),
            ("FROM a\nCOPY x\n", 2, "destination"),
            ("FROM a\nCOPY ../x /y\n", 2, "outside"),
            ("FROM a\nCOPY a b /y\n", 2, "`/`"),
            ("FROM a\nCOPY --chmod=u+x a /y\n", 2, "octal"),
            ("FROM a\nENV A\n", 2, "ENV"),
            ("FROM a\nENV A=\"b\n", 2, "quote"),
            ("FROM a\nSHELL [\"sh\"]\n", 2, "SHELL"),
            ("FROM a\nFLY\n", 2, "FLY"),
            ("FROM --platform=linux/arm64 a\n", 1, "--platform"),
        ] {
            let error = refused(source);
            assert_eq!(error.line, line, "{source}: {error}");
            assert!(error.message.contains(says), "{source}: {error}");
        }
    }

    #[test]
    fn the_shell_form_of_an_entrypoint_takes_no_cmd() {
        let start = |source: &str| parse(source, &BTreeMap::new()).expect(source).start_cmd;
        assert_eq!(
            start("FROM a\nENTRYPOINT run me\nCMD [\"x\"]\n").as_deref(),
            Some("run me")
        );
        assert_eq!(
            start("FROM a\nCMD serve --all\n").as_deref(),
            Some("serve --all")
        );
        assert_eq!(start("FROM a\nCMD serve\nCMD []\n"), None);
    }
}
