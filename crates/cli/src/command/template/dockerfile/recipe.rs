//! From instructions to a template's steps.

use std::collections::BTreeMap;

use super::text::{json_words, quoted, shell_line, words};

/// Who E2B's clients are inside a sandbox, and where.
const FINAL_USER: &str = "user";
const FINAL_WORKDIR: &str = "/home/user";

/// What a file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) from: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) start_cmd: Option<String>,
    /// Instructions that change nothing in a template.
    pub(crate) ignored: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Copy(CopyStep),
    Run(String),
    Env(Vec<(String, String)>),
    Workdir(String),
    User(String),
}

/// One source; several in an instruction are several steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyStep {
    /// Relative to the context; the last part may be a glob.
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) owner: Option<String>,
    /// Octal.
    pub(crate) mode: Option<String>,
}

/// A command in one of its two forms.
enum Form {
    Shell(String),
    Words(Vec<String>),
}

pub(super) struct Builder<'a> {
    given: &'a BTreeMap<String, String>,
    /// ARGs before FROM: known to FROM, and to an ARG of the same name after it.
    global: BTreeMap<String, String>,
    declared: Vec<String>,
    args: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    from: Option<String>,
    steps: Vec<Step>,
    user_set: bool,
    workdir_set: bool,
    entrypoint: Option<Form>,
    cmd: Option<Form>,
    ignored: Vec<String>,
}

type Result<T> = std::result::Result<T, String>;

impl<'a> Builder<'a> {
    pub(super) fn new(given: &'a BTreeMap<String, String>) -> Self {
        Self {
            given,
            global: BTreeMap::new(),
            declared: Vec::new(),
            args: BTreeMap::new(),
            env: BTreeMap::new(),
            from: None,
            // Docker begins as root, templates do not.
            steps: vec![Step::User("root".into()), Step::Workdir("/".into())],
            user_set: false,
            workdir_set: false,
            entrypoint: None,
            cmd: None,
            ignored: Vec::new(),
        }
    }

    pub(super) fn instruction(&mut self, line: &str) -> Result<()> {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (name, rest) = (name.to_ascii_uppercase(), rest.trim());
        if self.from.is_none() && !matches!(name.as_str(), "FROM" | "ARG") {
            return Err("the first instruction must be FROM".into());
        }
        if matches!(name.as_str(), "RUN" | "COPY") && rest.starts_with("<<") {
            return Err("here-documents (`<<`) are not supported; COPY a script and run it".into());
        }
        match name.as_str() {
            "FROM" => self.from(rest)?,
            "ARG" => self.arg(rest)?,
            "ENV" => self.env(rest)?,
            "COPY" => self.copy(rest)?,
            "RUN" => self.run(rest)?,
            "WORKDIR" => {
                self.workdir_set = true;
                let path = self.single("WORKDIR", rest)?;
                self.steps.push(Step::Workdir(path));
            }
            "USER" => {
                self.user_set = true;
                let user = self.single("USER", rest)?;
                self.steps.push(Step::User(user));
            }
            "CMD" => self.cmd = Some(form(rest)),
            "ENTRYPOINT" => self.entrypoint = Some(form(rest)),
            "EXPOSE" | "LABEL" | "MAINTAINER" => self.ignored.push(name),
            "ADD" => return Err("ADD is not supported; use COPY, or RUN curl for URLs".into()),
            _ => return Err(format!("{name} is not supported")),
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Recipe> {
        let from = self.from.ok_or("there is no FROM")?;
        if let Some(name) = self.given.keys().find(|name| !self.declared.contains(name)) {
            return Err(format!("there is no ARG {name} to give a value to"));
        }
        if !self.user_set {
            self.steps.push(Step::User(FINAL_USER.into()));
        }
        if !self.workdir_set {
            self.steps.push(Step::Workdir(FINAL_WORKDIR.into()));
        }
        Ok(Recipe {
            from,
            steps: self.steps,
            start_cmd: start_command(self.entrypoint, self.cmd),
            ignored: self.ignored,
        })
    }

    /// What variables stand for now; the environment wins over arguments.
    fn known(&self) -> BTreeMap<String, String> {
        let mut known = self.args.clone();
        known.extend(self.env.clone());
        known
    }

    fn single(&self, name: &str, rest: &str) -> Result<String> {
        match words(rest, &self.known())?.as_slice() {
            [word] if !word.is_empty() => Ok(word.clone()),
            _ => Err(format!("{name} takes one word")),
        }
    }

    fn from(&mut self, rest: &str) -> Result<()> {
        if self.from.is_some() {
            return Err("only one FROM is supported: builds have one stage".into());
        }
        refuse_flags("FROM", rest)?;
        let words = words(rest, &self.global)?;
        match words.as_slice() {
            [image] if !image.is_empty() => self.from = Some(image.clone()),
            [image, word, _] if word.eq_ignore_ascii_case("as") => self.from = Some(image.clone()),
            _ => return Err("FROM takes an image or a template".into()),
        }
        Ok(())
    }

    fn arg(&mut self, rest: &str) -> Result<()> {
        let before = self.from.is_none();
        let known = if before {
            self.global.clone()
        } else {
            self.known()
        };
        for word in words(rest, &known)? {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
                None => (word.clone(), self.global.get(&word).cloned()),
            };
            let value = self.given.get(&name).cloned().or(default);
            let values = if before {
                &mut self.global
            } else {
                &mut self.args
            };
            if let Some(value) = value {
                values.insert(name.clone(), value);
            }
            self.declared.push(name);
        }
        Ok(())
    }

    fn env(&mut self, rest: &str) -> Result<()> {
        let known = self.known();
        let first = rest.split_whitespace().next().unwrap_or_default();
        let mut pairs = Vec::new();
        if first.contains('=') {
            for word in words(rest, &known)? {
                let (name, value) = word.split_once('=').ok_or("ENV wants NAME=VALUE pairs")?;
                pairs.push((name.to_owned(), value.to_owned()));
            }
        } else {
            let (name, value) = rest
                .split_once(char::is_whitespace)
                .ok_or("ENV wants NAME=VALUE pairs")?;
            pairs.push((name.to_owned(), words(value, &known)?.join(" ")));
        }
        self.env.extend(pairs.iter().cloned());
        self.steps.push(Step::Env(pairs));
        Ok(())
    }

    fn copy(&mut self, rest: &str) -> Result<()> {
        let (flags, rest) = flags(rest);
        let (mut owner, mut mode) = (None, None);
        for flag in flags {
            let flag = words(flag, &self.known())?.concat();
            match flag.split_once('=') {
                Some(("--chown", value)) => owner = Some(value.to_owned()),
                Some(("--chmod", value)) => {
                    if !u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777) {
                        return Err("--chmod wants octal permission bits".into());
                    }
                    mode = Some(value.to_owned());
                }
                _ => return Err(format!("COPY {flag} is not supported")),
            }
        }
        let mut paths = match json_words(rest) {
            Some(words) => words,
            None => words(rest, &self.known())?,
        };
        let destination = paths.pop().unwrap_or_default();
        if paths.is_empty() {
            return Err("COPY wants sources and a destination".into());
        }
        if paths.len() > 1 && !destination.ends_with('/') {
            return Err("the destination of several sources must end with `/`".into());
        }
        for source in paths {
            self.steps.push(Step::Copy(CopyStep {
                source: inside(&source)?,
                destination: destination.clone(),
                owner: owner.clone(),
                mode: mode.clone(),
            }));
        }
        Ok(())
    }

    fn run(&mut self, rest: &str) -> Result<()> {
        refuse_flags("RUN", rest)?;
        let command = match form(rest) {
            Form::Shell(line) => line,
            Form::Words(words) => shell_line(&words),
        };
        if command.is_empty() {
            return Err("RUN wants a command".into());
        }
        // Arguments are in the environment of commands; the environment itself wins.
        let exports: Vec<String> = self
            .args
            .iter()
            .filter(|(name, _)| !self.env.contains_key(*name))
            .map(|(name, value)| format!("{name}={}", quoted(value)))
            .collect();
        let command = match exports.is_empty() {
            true => command,
            false => format!("export {}\n{command}", exports.join(" ")),
        };
        self.steps.push(Step::Run(command));
        Ok(())
    }
}

fn form(rest: &str) -> Form {
    json_words(rest).map_or_else(|| Form::Shell(rest.to_owned()), Form::Words)
}

/// The flags before the first word that is none.
fn flags(mut rest: &str) -> (Vec<&str>, &str) {
    let mut flags = Vec::new();
    while rest.starts_with("--") {
        let (flag, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        flags.push(flag);
        rest = after.trim_start();
    }
    (flags, rest)
}

fn refuse_flags(name: &str, rest: &str) -> Result<()> {
    match flags(rest).0.first() {
        Some(flag) => Err(format!("{name} {flag} is not supported")),
        None => Ok(()),
    }
}

/// A source without its leading slashes and dots; it must not leave the context.
fn inside(source: &str) -> Result<String> {
    if source.contains("://") {
        return Err("COPY takes files of the context, not URLs".into());
    }
    let parts: Vec<&str> = source
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if parts.contains(&"..") {
        return Err(format!("`{source}` is outside of the context"));
    }
    let slash = if source.ends_with('/') && !parts.is_empty() {
        "/"
    } else {
        ""
    };
    let path = if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    };
    Ok(path + slash)
}

/// As Docker puts the two together.
fn start_command(entrypoint: Option<Form>, cmd: Option<Form>) -> Option<String> {
    let line = match (entrypoint, cmd) {
        (Some(Form::Shell(line)), _) | (None, Some(Form::Shell(line))) => line,
        (Some(Form::Words(mut words)), Some(Form::Words(rest))) => {
            words.extend(rest);
            shell_line(&words)
        }
        (Some(Form::Words(mut words)), Some(Form::Shell(line))) => {
            words.extend(["/bin/sh".into(), "-c".into(), line]);
            shell_line(&words)
        }
        (Some(Form::Words(words)), None) | (None, Some(Form::Words(words))) => shell_line(&words),
        (None, None) => return None,
    };
    Some(line).filter(|line| !line.is_empty())
}
