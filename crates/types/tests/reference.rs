//! `docs/reference/errors.md` is the table of codes; `UPDATE=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use woodfrog_types::error::Code;

const HEAD: &str = "# Error codes

Generated from `woodfrog_types::error`: `UPDATE=1 cargo test -p woodfrog-types --test reference`.

The native API answers an error as `application/problem+json` with `code`, `status`, `title` and `detail`.
The E2B API answers it as `{\"code\": STATUS, \"message\": \"…\"}`. A code never changes its meaning; match on it,
not on the text. *Again* says whether the same request may succeed later without a change.

| code | status | again | meaning |
|---|---|---|---|
";

fn page() -> String {
    let mut text = HEAD.to_owned();
    for code in Code::ALL {
        let again = if code.retryable() { "yes" } else { "no" };
        let (status, meaning) = (code.http_status(), code.meaning());
        let _ = writeln!(text, "| `{code}` | {status} | {again} | {meaning} |");
    }
    text
}

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/errors.md");
    let text = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).expect("write the reference");
        return;
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == text,
        "docs/reference/errors.md is not the table of codes; run with UPDATE=1"
    );
}

#[test]
fn every_code_says_what_it_means() {
    for code in Code::ALL {
        let meaning = code.meaning();
        assert!(meaning.ends_with('.') && !meaning.contains('|'), "{code}");
    }
}
