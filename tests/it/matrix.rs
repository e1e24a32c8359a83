//! The same stories over every protocol that a client may speak: none may know a difference.

use std::panic::{AssertUnwindSafe, catch_unwind};

use http::Request;

use crate::kit::{Ca, Content, Heard, Origin, Protocol, Proxy, Talker, ok};

/// Tells a story over each protocol, on one connection each, and names those over which it went wrong.
fn over_each(
    script: impl Fn(&Heard) -> Vec<u8> + Send + Sync + 'static,
    story: impl Fn(&mut Talker, &dyn Fn() -> Heard),
) {
    let origin = Origin::scripted(move |heard, _| script(heard));
    let proxy = Proxy::prepared(
        &format!(
            r#"
            [listeners.http]
            address = "127.0.0.1:0"
            [listeners.https]
            address = "127.0.0.1:0"
            tls.certificates = [{{ cert = "@FOLDER/a.pem", key = "@FOLDER/a.key" }}]
            [pools.app]
            endpoints = ["{}"]
            [routes.all]
            match.path = "/app/*"
            pool = "app"
            limits.body = "2MiB"
            "#,
            origin.address
        ),
        |folder| _ = Ca::new().issue(&["a"]).write(folder, "a"),
    );
    let last_heard = || origin.heard().last().expect("a request at the endpoint").clone();
    let mut failed = Vec::new();
    for protocol in Protocol::ALL {
        let told = catch_unwind(AssertUnwindSafe(|| {
            let mut talker = Talker::connect(&proxy, protocol);
            // Twice: what the first leaves behind must not harm the second.
            story(&mut talker, &last_heard);
            story(&mut talker, &last_heard);
        }));
        if told.is_err() {
            failed.push(protocol);
        }
    }
    assert!(failed.is_empty(), "went wrong over {failed:?}");
}

fn request(method: &str, body: Content) -> Request<Content> {
    Request::builder().method(method).uri("/app/x?y=1").body(body).unwrap()
}

#[test]
fn get() {
    over_each(
        |_| ok("hello"),
        |talker, heard| {
            let reply = talker.exchange(request("GET", Content::default())).unwrap();
            assert_eq!((reply.status, &*reply.text(), reply.header("content-length")), (200, "hello", Some("5")));
            let heard = heard();
            assert_eq!((&*heard.line, heard.header("host")), ("GET /app/x?y=1 HTTP/1.1", Some("a")));
            assert_eq!((heard.header("content-length"), heard.header("transfer-encoding")), (None, None));
        },
    );
}

#[test]
fn head() {
    over_each(
        |_| b"HTTP/1.1 200 OK\r\ncontent-length: 42\r\netag: \"1\"\r\n\r\n".to_vec(),
        |talker, _| {
            let reply = talker.exchange(request("HEAD", Content::default())).unwrap();
            assert_eq!((reply.status, reply.body.len(), reply.header("content-length")), (200, 0, Some("42")));
            assert_eq!(reply.header("etag"), Some("\"1\""));
        },
    );
}

#[test]
fn post_of_known_length() {
    over_each(
        |heard| ok(&String::from_utf8_lossy(&heard.body)),
        |talker, heard| {
            let reply = talker.exchange(request("POST", Content::whole("a note"))).unwrap();
            assert_eq!((reply.status, &*reply.text()), (200, "a note"));
            assert_eq!(heard().header("content-length"), Some("6"));
        },
    );
}

#[test]
fn post_of_no_bytes() {
    over_each(
        |_| ok("none"),
        |talker, heard| {
            let post = Request::builder().method("POST").uri("/app/").header("content-length", "0");
            assert_eq!(talker.exchange(post.body(Content::default()).unwrap()).unwrap().text(), "none");
            assert_eq!((heard().header("content-length"), heard().body.len()), (Some("0"), 0));
        },
    );
}

#[test]
fn post_in_pieces() {
    over_each(
        |heard| ok(&String::from_utf8_lossy(&heard.body)),
        |talker, heard| {
            let reply = talker.exchange(request("POST", Content::streamed(&["one ", "two ", "three"]))).unwrap();
            assert_eq!((reply.status, &*reply.text()), (200, "one two three"));
            assert_eq!(
                (heard().header("content-length"), heard().header("transfer-encoding")),
                (None, Some("chunked"))
            );
        },
    );
}

#[test]
fn response_in_pieces() {
    over_each(
        |_| b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n".to_vec(),
        |talker, _| {
            let reply = talker.exchange(request("GET", Content::default())).unwrap();
            assert_eq!((reply.status, &*reply.text()), (200, "one two"));
        },
    );
}

#[test]
fn no_content() {
    over_each(
        |_| b"HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n".to_vec(),
        |talker, _| {
            let reply = talker.exchange(request("DELETE", Content::default())).unwrap();
            assert_eq!((reply.status, reply.body.len(), reply.header("x-a")), (204, 0, Some("1")));
            assert_eq!((reply.header("content-length"), reply.header("transfer-encoding")), (None, None));
        },
    );
}

#[test]
fn not_modified() {
    over_each(
        |_| b"HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ncontent-length: 42\r\n\r\n".to_vec(),
        |talker, heard| {
            let get = Request::builder().uri("/app/").header("if-none-match", "\"1\"");
            let reply = talker.exchange(get.body(Content::default()).unwrap()).unwrap();
            assert_eq!((reply.status, reply.body.len(), reply.header("etag")), (304, 0, Some("\"1\"")));
            assert_eq!(heard().header("if-none-match"), Some("\"1\""));
        },
    );
}

#[test]
fn trailers_both_ways() {
    over_each(
        |_| {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 4\r\n\r\n"
                .to_vec()
        },
        |talker, heard| {
            let post =
                Request::builder().method("POST").uri("/app/").header("te", "trailers").header("trailer", "x-up");
            let body = Content::streamed(&["up"]).with_trailer("x-up", "2");
            let reply = talker.exchange(post.body(body).unwrap()).unwrap();
            assert_eq!((reply.status, &*reply.text()), (200, "body"));
            assert_eq!(reply.trailers.get("x-sum").map(|value| value.as_bytes()), Some(&b"4"[..]));
            assert_eq!(heard().trailers, [("x-up".to_owned(), "2".to_owned())]);
        },
    );
}

#[test]
fn a_mebibyte_both_ways() {
    over_each(
        |heard| {
            let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", heard.body.len()).into_bytes();
            answer.extend(heard.body.iter().rev());
            answer
        },
        |talker, _| {
            let sent: Vec<u8> = (0..1 << 20_u32).map(|at: u32| (at * 31 / 8) as u8).collect();
            let reply = talker.exchange(request("PUT", Content::whole(sent.clone()))).unwrap();
            assert_eq!((reply.status, reply.body.len()), (200, sent.len()));
            assert!(reply.body.iter().eq(sent.iter().rev()), "the bytes are others");
        },
    );
}

#[test]
fn an_endpoints_error_passes_as_it_is() {
    over_each(
        |_| b"HTTP/1.1 500 Oh\r\ncontent-length: 4\r\nx-a: 1\r\n\r\noops".to_vec(),
        |talker, _| {
            let reply = talker.exchange(request("POST", Content::whole("x"))).unwrap();
            assert_eq!((reply.status, &*reply.text(), reply.header("x-a")), (500, "oops", Some("1")));
            assert_eq!(reply.header("proxy-status"), None);
        },
    );
}

#[test]
fn headgates_own_errors_have_status_reason_and_length() {
    over_each(
        |_| Vec::new(),
        |talker, _| {
            let lost = talker.exchange(request("POST", Content::whole("x"))).unwrap();
            assert_eq!(lost.status, 502, "{}", lost.text());
            assert!(lost.text().contains("reason: endpoint_closed"), "{}", lost.text());
            assert!(lost.header("proxy-status").is_some_and(|status| status.starts_with("headgate; error=")));
            let nowhere = talker.exchange(Request::get("/none").body(Content::default()).unwrap()).unwrap();
            assert_eq!(
                (nowhere.status, nowhere.header("content-length")),
                (404, Some(&*nowhere.body.len().to_string()))
            );
        },
    );
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    over_each(
        |_| ok("never"),
        |talker, _| {
            // An HTTP/1.1 connection ends with it, which the client may see first.
            if let Ok(reply) = talker.exchange(request("POST", Content::whole(vec![0; 3 << 20]))) {
                assert_eq!(reply.status, 413);
            }
        },
    );
}
