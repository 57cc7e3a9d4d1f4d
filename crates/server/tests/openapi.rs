//! The committed OpenAPI document is the one that the handlers give.

use std::path::PathBuf;

/// Run with `UPDATE=1` to write the document anew.
#[test]
fn openapi_document_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi.json");
    let document = woodfrog_server::native::document();
    let mut text = serde_json::to_string_pretty(&document).expect("the document is JSON");
    text.push('\n');
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("docs/reference");
        std::fs::write(&path, &text).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/reference/openapi.json is out of date: run UPDATE=1 cargo test -p woodfrog-server openapi"
    );
}

#[test]
fn openapi_operations_are_unique() {
    let document = serde_json::to_value(woodfrog_server::native::document()).expect("json");
    assert_eq!(document["openapi"], "3.1.0");
    let mut seen = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let Some(id) = operation["operationId"].as_str() else {
                panic!("{method} {path} has no operation id");
            };
            assert!(seen.insert(id.to_owned()), "{id} twice");
        }
    }
}
