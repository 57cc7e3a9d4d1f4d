//! `woodfrog template security`.

use reqwest::Method;
use woodfrog_wire::native::template::{Security, SetSecurity, TemplateSecurity};

use crate::args::{Allowed, Target};
use crate::client::Client;
use crate::command::Outcome;
use crate::output;

pub(super) async fn run(name: &str, allow: &[Allowed], target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let route = client.route(&["templates", name, "security"]);
    let request = client.request(Method::PUT, route).json(&wanted(allow));
    let set: TemplateSecurity = client.json(request).await?;
    if target.json {
        output::json(&set)?;
        return Ok(0);
    }
    let state = |on: bool| if on { "allowed" } else { "refused" }.to_owned();
    let Security {
        nested_namespaces,
        io_uring,
        userfaultfd,
        landlock,
    } = set.security;
    output::fields(&[
        ("nested-namespaces", state(nested_namespaces)),
        ("io-uring", state(io_uring)),
        ("userfaultfd", state(userfaultfd)),
        ("landlock", state(landlock)),
    ])?;
    for loss in &set.losses {
        output::line(loss)?;
    }
    Ok(0)
}

fn wanted(allow: &[Allowed]) -> SetSecurity {
    let mut wanted = SetSecurity::default();
    for allowed in allow {
        match allowed {
            Allowed::NestedNamespaces => wanted.nested_namespaces = true,
            Allowed::IoUring => wanted.io_uring = true,
            Allowed::Userfaultfd => wanted.userfaultfd = true,
            Allowed::Landlock => wanted.landlock = true,
        }
    }
    wanted
}
