//! The page and its files: what a browser and a cache see.

use crate::kit::Server;

const FILES: [(&str, &str); 3] = [
    ("/static/app.css", "text/css; charset=utf-8"),
    ("/static/app.js", "text/javascript; charset=utf-8"),
    ("/static/logo.svg", "image/svg+xml"),
];

#[test]
fn the_page_runs_only_its_own_files() {
    let server = Server::in_memory();
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");

    let html = page.text();
    assert!(!html.contains("<style"), "no inline style");
    assert!(!html.contains(" style="), "no inline style");
    for tag in html.split('<').filter_map(|part| part.split('>').next()) {
        let handler = tag.split_whitespace().find(|word| word.starts_with("on") && word.contains('='));
        assert_eq!(handler, None, "no inline handler in <{tag}>");
    }
    assert!(!html.contains("<script>"), "no inline script");
    for (file, _) in FILES {
        assert!(html.contains(file), "{file} is used");
    }
}

/// Each field that a person fills in has a label that names it.
#[test]
fn every_field_of_the_page_is_labelled() {
    let html = Server::in_memory().get("/").text();
    for tag in ["<input", "<select", "<textarea"] {
        for field in html.split(tag).skip(1) {
            let id = field.split("id=\"").nth(1).and_then(|rest| rest.split('"').next());
            let label = format!("<label for=\"{}\"", id.expect("a field has an id"));
            assert!(html.contains(&label), "{label}");
        }
    }
}

#[test]
fn a_static_file_is_cacheable_and_checked_by_its_etag() {
    let server = Server::in_memory();
    let mut etags = Vec::new();
    for (file, media_type) in FILES {
        let full = server.get(file);
        assert_eq!(full.status, 200);
        assert!(!full.body.is_empty());
        assert_eq!(full.header("content-type"), Some(media_type));
        assert_eq!(full.header("cache-control"), Some("public, max-age=60"));
        let etag = full.header("etag").unwrap().to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag} is strong");

        let weak = format!("W/{etag}");
        let list = format!("\"other\", {etag}");
        for held in [etag.as_str(), &weak, &list, "*"] {
            let unchanged = server.request("GET", file, &[("if-none-match", held)], b"");
            assert_eq!(unchanged.status, 304, "{file} {held}");
            assert!(unchanged.body.is_empty());
            assert_eq!(unchanged.header("etag"), Some(etag.as_str()));
            assert_eq!(unchanged.header("cache-control"), Some("public, max-age=60"));
        }
        let changed = server.request("GET", file, &[("if-none-match", "\"other\"")], b"");
        assert_eq!(changed.status, 200);
        assert_eq!(changed.body, full.body);

        let head = server.request("HEAD", file, &[], b"");
        assert_eq!(head.status, 200);
        assert_eq!(head.header("etag"), Some(etag.as_str()));
        let length = full.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()));
        etags.push(etag);
    }
    etags.dedup();
    assert_eq!(etags.len(), FILES.len(), "each file has its own tag");
}

#[test]
fn two_servers_give_the_same_etag() {
    let (one, other) = (Server::in_memory(), Server::in_memory());
    for (file, _) in FILES {
        assert_eq!(one.get(file).header("etag"), other.get(file).header("etag"));
    }
}
