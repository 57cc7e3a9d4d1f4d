//! `woodfrog template security`.

use reqwest::Method;
use woodfrog_wire::native::template::{Runtime, Security, SetSecurity, TemplateSecurity};

use crate::args::{Allowed, On, Target};
use crate::client::Client;
use crate::command::Outcome;
use crate::output;

pub(super) async fn run(name: &str, allow: &[Allowed], runtime: On, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let route = client.route(&["templates", name, "security"]);
    let request = client
        .request(Method::PUT, route)
        .json(&wanted(allow, runtime));
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
        message_queues,
        runtime,
    } = set.security;
    let runtime = match runtime {
        Runtime::Native => "native",
        Runtime::Gvisor => "gvisor",
    };
    output::fields(&[
        ("nested-namespaces", state(nested_namespaces)),
        ("io-uring", state(io_uring)),
        ("userfaultfd", state(userfaultfd)),
        ("landlock", state(landlock)),
        ("message-queues", state(message_queues)),
        ("runtime", runtime.to_owned()),
    ])?;
    for loss in &set.losses {
        output::line(loss)?;
    }
    Ok(0)
}

fn wanted(allow: &[Allowed], runtime: On) -> SetSecurity {
    let mut wanted = SetSecurity {
        runtime: match runtime {
            On::Native => Runtime::Native,
            On::Gvisor => Runtime::Gvisor,
        },
        ..SetSecurity::default()
    };
    for allowed in allow {
        match allowed {
            Allowed::NestedNamespaces => wanted.nested_namespaces = true,
            Allowed::IoUring => wanted.io_uring = true,
            Allowed::Userfaultfd => wanted.userfaultfd = true,
            Allowed::Landlock => wanted.landlock = true,
            Allowed::MessageQueues => wanted.message_queues = true,
        }
    }
    wanted
}
