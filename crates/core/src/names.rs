//! Names of templates and their tags.

use woodfrog_types::limits::TEMPLATE_NAME_BYTES_MAX;
use woodfrog_types::template::DEFAULT_TAG;
use woodfrog_types::{Fault, SecretId};

/// Bytes of a tag.
pub const TAG_BYTES_MAX: usize = 64;
/// Bytes of a secret's name.
pub const SECRET_NAME_BYTES_MAX: usize = 128;
/// Bytes of a volume's name.
pub const VOLUME_NAME_BYTES_MAX: usize = 128;
/// Tags of one template.
pub const TAGS_MAX: usize = 64;

/// A reference to a template: `name`, `name:tag`, `id`, `id:tag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateRef<'a> {
    pub name: &'a str,
    /// `None`: the default tag is meant, but was not named.
    pub tag: Option<&'a str>,
}

impl<'a> TemplateRef<'a> {
    /// Splits and checks a reference.
    pub fn parse(text: &'a str) -> Result<Self, Fault> {
        let (name, tag) = match text.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (text, None),
        };
        template_name(name)?;
        tag.map_or(Ok(()), self::tag)?;
        Ok(Self { name, tag })
    }

    /// The tag that is meant.
    pub fn tag_or_default(&self) -> &'a str {
        self.tag.unwrap_or(DEFAULT_TAG)
    }
}

fn is_name(text: &str, max: usize) -> bool {
    text.len() <= max
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit())
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
        })
}

/// Checks a template's name: `[a-z0-9][a-z0-9._-]*`.
pub fn template_name(name: &str) -> Result<(), Fault> {
    if is_name(name, TEMPLATE_NAME_BYTES_MAX) {
        return Ok(());
    }
    Err(Fault::invalid(
        "name",
        format!(
            "a template name is 1 to {TEMPLATE_NAME_BYTES_MAX} characters of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit"
        ),
    ))
}

/// A secret's name in lower case: `[a-z0-9][a-z0-9._-]*`, and nothing that looks like an id.
pub fn secret_name(name: &str) -> Result<String, Fault> {
    let name = name.to_ascii_lowercase();
    if is_name(&name, SECRET_NAME_BYTES_MAX) && !name.starts_with(SecretId::TAG) {
        return Ok(name);
    }
    Err(Fault::invalid(
        "name",
        format!(
            "a secret's name is 1 to {SECRET_NAME_BYTES_MAX} characters of a-z, 0-9, '.', '_' and '-', begins with a letter or digit, and not with `{}`",
            SecretId::TAG
        ),
    ))
}

/// Checks a volume's name: `[A-Za-z0-9_-]+`.
pub fn volume_name(name: &str) -> Result<(), Fault> {
    let fits = (1..=VOLUME_NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if fits {
        return Ok(());
    }
    Err(Fault::invalid(
        "name",
        format!(
            "a volume's name is 1 to {VOLUME_NAME_BYTES_MAX} characters of a-z, A-Z, 0-9, '_' and '-'"
        ),
    ))
}

/// Checks a tag: `[A-Za-z0-9][A-Za-z0-9._-]*`.
pub fn tag(tag: &str) -> Result<(), Fault> {
    if is_name(&tag.to_ascii_lowercase(), TAG_BYTES_MAX) {
        return Ok(());
    }
    Err(Fault::invalid(
        "tag",
        format!(
            "a tag is 1 to {TAG_BYTES_MAX} characters of a-z, A-Z, 0-9, '.', '_' and '-', and begins with a letter or digit"
        ),
    ))
}

/// Checks a list of tags.
pub fn tags(list: &[String]) -> Result<(), Fault> {
    if list.len() > TAGS_MAX {
        return Err(Fault::invalid(
            "tags",
            format!("at most {TAGS_MAX} tags are allowed"),
        ));
    }
    list.iter().try_for_each(|item| tag(item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_split_at_the_colon() {
        let plain = TemplateRef::parse("my-app").unwrap();
        assert_eq!((plain.name, plain.tag), ("my-app", None));
        assert_eq!(plain.tag_or_default(), "default");
        let tagged = TemplateRef::parse("my-app:v1.2").unwrap();
        assert_eq!((tagged.name, tagged.tag_or_default()), ("my-app", "v1.2"));
        assert!(TemplateRef::parse("a:V2").is_ok());
    }

    #[test]
    fn bad_names_are_refused() {
        let long = "a".repeat(TEMPLATE_NAME_BYTES_MAX + 1);
        for bad in [
            "",
            "-a",
            ".a",
            "A",
            "a b",
            "a/b",
            "..",
            "a:",
            ":a",
            "a:b:c",
            "ä",
            long.as_str(),
        ] {
            assert!(TemplateRef::parse(bad).is_err(), "{bad}");
        }
        let many: Vec<_> = (0..=TAGS_MAX).map(|n| format!("t{n}")).collect();
        assert!(tags(&many).is_err());
        assert!(tags(&many[..TAGS_MAX]).is_ok());
    }
}
