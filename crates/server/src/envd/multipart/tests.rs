use super::*;
use proptest::prelude::*;

const TYPE: &str = "multipart/form-data; boundary=----formdata-undici-012";

fn encode(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (filename, content) in parts {
        out.extend_from_slice(
            format!(
                "------formdata-undici-012\r\nContent-Disposition: form-data; name=\"file\"; \
                 filename=\"{filename}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
            )
            .as_bytes(),
        );
        out.extend_from_slice(content);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"------formdata-undici-012--\r\n");
    out
}

fn decode(wire: &[u8], cut: usize) -> Result<Vec<(PartHead, Vec<u8>)>, MultipartError> {
    let mut splitter = Splitter::new(TYPE).unwrap();
    let mut out: Vec<(PartHead, Vec<u8>)> = Vec::new();
    let mut open = false;
    'body: for piece in wire.chunks(cut) {
        splitter.feed(piece);
        loop {
            match splitter.next()? {
                Event::Part(head) => {
                    assert!(!open);
                    open = true;
                    out.push((head, Vec::new()));
                }
                Event::Data(bytes) => {
                    assert!(open && !bytes.is_empty());
                    out.last_mut().unwrap().1.extend_from_slice(&bytes);
                }
                Event::PartEnd => {
                    assert!(open);
                    open = false;
                }
                Event::More => break,
                Event::Done => break 'body,
            }
        }
    }
    splitter.finish()?;
    Ok(out)
}

#[test]
fn file_names_keep_slashes_and_escapes() {
    let wire = encode(&[("/home/user/a b/\\\"x\\\".txt", b"one"), ("rel/é.bin", b"")]);
    let parts = decode(&wire, 7).unwrap();
    assert_eq!(
        parts[0].0.filename.as_deref(),
        Some("/home/user/a b/\"x\".txt")
    );
    assert_eq!(parts[0].0.name.as_deref(), Some("file"));
    assert_eq!(parts[0].1, b"one");
    assert_eq!(parts[1].0.filename.as_deref(), Some("rel/é.bin"));
    assert_eq!(parts[1].1, b"");
}

#[test]
fn extended_file_names_win() {
    let head = part_head(
        "\r\nContent-Disposition: form-data; name=file; filename=\"x\"; filename*=UTF-8''a%2Fb%C3%A9\r\n",
    );
    assert_eq!(head.filename.as_deref(), Some("a/bé"));
    assert_eq!(head.name.as_deref(), Some("file"));
}

#[test]
fn damaged_bodies_are_refused() {
    let wire = encode(&[("a", b"content")]);
    assert_eq!(
        decode(&wire[..wire.len() - 6], 5),
        Err(MultipartError::Truncated)
    );
    assert_eq!(decode(b"", 1), Err(MultipartError::Truncated));
    assert_eq!(
        decode(b"------formdata-undici-012xx\r\n\r\n", 4),
        Err(MultipartError::Delimiter)
    );
    let endless = [
        b"------formdata-undici-012\r\n".to_vec(),
        vec![b'a'; 20 << 10],
    ]
    .concat();
    assert_eq!(decode(&endless, 1000), Err(MultipartError::HeadersTooLarge));
    assert!(matches!(
        Splitter::new("multipart/form-data"),
        Err(MultipartError::Boundary)
    ));
    assert!(Splitter::new("multipart/form-data; boundary=\"a b\"").is_ok());
}

proptest! {
    #[test]
    fn content_survives_any_split(
        contents in proptest::collection::vec(
            proptest::collection::vec(
                prop_oneof![
                    Just(b"\r\n".to_vec()),
                    Just(b"\r\n------formdata-undici-01".to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..40),
                ],
                0..6,
            ),
            0..4,
        ),
        cut in 1_usize..90,
    ) {
        let contents: Vec<Vec<u8>> = contents.into_iter().map(|pieces| pieces.concat()).collect();
        // A delimiter inside the content is the sender's mistake.
        prop_assume!(contents.iter().all(|c| memmem::find(c, b"\r\n------formdata-undici-012").is_none()));
        let parts: Vec<_> = contents.iter().map(|c| ("f", c.as_slice())).collect();
        let decoded = decode(&encode(&parts), cut).unwrap();
        prop_assert_eq!(decoded.into_iter().map(|(_, c)| c).collect::<Vec<_>>(), contents);
    }

    #[test]
    fn no_bytes_make_it_panic(wire in proptest::collection::vec(prop_oneof![
        Just(b"\r\n------formdata-undici-012".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"--".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ], 0..30), cut in 1_usize..20) {
        let _ = decode(&wire.concat(), cut);
    }

    #[test]
    fn no_header_value_makes_it_panic(value in "\\PC{0,80}|[a-z;=\"\\\\ *']{0,80}") {
        let _ = parameters(&value);
        let _ = Splitter::new(&value);
        let _ = part_head(&format!("content-disposition: {value}"));
    }
}
