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
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::resolve;

    /// Parts that mean something, parts that nearly do, and any other text.
    fn part() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => prop::sample::select(vec!["..", ".", "", "~", "a", "b"]).prop_map(str::to_owned),
            2 => prop::sample::select(vec!["...", ". ", "~user", "\0", "a\0b", "\u{feff}", "é", "\\", "%2e%2e"])
                .prop_map(str::to_owned),
            2 => "\\PC{0,12}",
            1 => any::<String>(),
            1 => (200..5000usize).prop_map(|len| "n".repeat(len)),
        ]
    }

    fn parts(most: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(part(), 0..most).prop_map(|parts| parts.join("/"))
    }

    fn any_path() -> impl Strategy<Value = String> {
        (
            prop::sample::select(vec!["", "/", "//", "~", "~/", "../", "./"]),
            parts(12),
        )
            .prop_map(|(start, rest)| format!("{start}{rest}"))
    }

    /// As the passwd file has them: absolute, and otherwise anything.
    fn any_home() -> impl Strategy<Value = String> {
        parts(5).prop_map(|rest| format!("/{rest}"))
    }

    /// Names of a path in which nothing goes up or stays.
    fn plain() -> impl Strategy<Value = String> {
        let name = "[^/\0~.][^/\0]{0,8}";
        prop::collection::vec(name, 1..6).prop_map(|names| names.join("/"))
    }

    /// The same by the standard library's idea of the parts of a path.
    fn model(full: &str) -> String {
        let mut names = Vec::new();
        for component in Path::new(full).components() {
            match component {
                Component::Normal(name) => names.push(name.to_str().unwrap()),
                Component::ParentDir => drop(names.pop()),
                Component::RootDir | Component::CurDir => {}
                Component::Prefix(_) => unreachable!("paths of Windows"),
            }
        }
        format!("/{}", names.join("/"))
    }

    proptest! {
        #[test]
        fn the_result_is_absolute_and_says_where_it_is(path in any_path(), home in any_home()) {
            let meant = resolve(&path, &home);
            prop_assert!(meant.starts_with('/'));
            let below = &meant[1..];
            let bad = |part: &str| matches!(part, "" | "." | "..");
            prop_assert!(below.is_empty() || !below.split('/').any(bad), "{meant:?}");
            // Nothing is made up.
            let said = |part: &str| path.split('/').chain(home.split('/')).any(|one| one == part);
            prop_assert!(below.is_empty() || below.split('/').all(said), "{meant:?}");
            prop_assert!(meant.len() <= home.len() + path.len() + 2);
        }

        #[test]
        fn what_is_resolved_stays(path in any_path(), home in any_home(), other in any_home()) {
            let meant = resolve(&path, &home);
            prop_assert_eq!(resolve(&meant, &other), meant);
        }

        #[test]
        fn it_is_what_the_standard_library_reads(path in any_path(), home in any_home()) {
            let full = match path.strip_prefix('~') {
                Some("") => home.clone(),
                Some(rest) if rest.starts_with('/') => format!("{home}/{rest}"),
                _ if path.starts_with('/') => path.clone(),
                _ => format!("{home}/{path}"),
            };
            prop_assert_eq!(resolve(&path, &home), model(&full));
        }

        #[test]
        fn absolute_paths_have_no_home(path in parts(12), one in any_home(), other in any_home()) {
            let path = format!("/{path}");
            prop_assert_eq!(resolve(&path, &one), resolve(&path, &other));
        }

        #[test]
        fn steps_down_stay_below_the_home(names in plain(), home in any_home()) {
            let home = resolve(&home, "/");
            let below = |path: &str| Path::new(path).strip_prefix(&home).unwrap().to_path_buf();
            prop_assert_eq!(below(&resolve(&names, &home)), Path::new(&names));
            let tilde = format!("~/{names}");
            prop_assert_eq!(below(&resolve(&tilde, &home)), Path::new(&names));
            // As many steps up as down lead back, and any number of them to the root at most.
            let up = names.split('/').map(|_| "/..").collect::<String>();
            prop_assert_eq!(resolve(&format!("{names}{up}"), &home), home.as_str());
            let out = "/..".repeat(names.split('/').count() + home.split('/').count());
            prop_assert_eq!(resolve(&format!("{names}{out}"), &home), "/");
        }
    }

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
