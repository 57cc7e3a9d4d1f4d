//! What a path in a request means.

/// The absolute path meant: `~` and relative paths start at `home`; `.`, `..` and doubled
/// slashes are taken out of the text.
pub(crate) fn resolve(path: &str, home: &str) -> String {
    let rest = path.strip_prefix("~/").or((path == "~").then_some(""));
    let full = match rest {
        Some(rest) => format!("{home}/{rest}"),
        None if path.starts_with('/') => path.to_owned(),
        None => format!("{home}/{path}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in full.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn resolves_like_a_shell_user_expects() {
        let cases = [
            ("~", "/home/u"),
            ("~/a", "/home/u/a"),
            ("a/b", "/home/u/a/b"),
            ("", "/home/u"),
            ("/a//b/./c/../d/", "/a/b/d"),
            ("/../..", "/"),
            ("~other", "/home/u/~other"),
        ];
        for (path, expected) in cases {
            assert_eq!(resolve(path, "/home/u"), expected);
        }
    }
}
