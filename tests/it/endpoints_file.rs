//! A pool's endpoints in a file that another program writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::kit::{Origin, Proxy, answer_to, eventually};

fn config() -> String {
    Proxy::text(&[], "", "", "").replace("endpoints = []", "endpoints_file = \"app.toml\"")
}

fn list(origins: &[&Origin]) -> String {
    let all: Vec<String> =
        origins.iter().map(|origin| format!("  {{ address = \"{}\" }},\n", origin.address)).collect();
    format!("# written by a scaler\nendpoints = [\n{}]\n", all.concat())
}

fn served(proxy: &Proxy) -> String {
    let answer = answer_to(proxy.address(), "GET", "/");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Replaces a file as careful tools do.
fn replace(path: &Path, text: &str) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, path).unwrap();
}

#[test]
fn a_changed_list_goes_live_and_a_broken_one_does_not() {
    let (one, two, three) = (Origin::named("one"), Origin::named("two"), Origin::named("three"));
    let proxy = Proxy::prepared(&config(), |folder| fs::write(folder.join("app.toml"), list(&[&one])).unwrap());
    let file = proxy.folder.path().join("app.toml");
    assert_eq!(served(&proxy), "one");
    fs::write(&file, list(&[&two])).unwrap();
    eventually("the overwritten list serves", || served(&proxy) == "two");
    replace(&file, &list(&[&three]));
    eventually("the renamed list serves", || served(&proxy) == "three");
    let receipts = proxy.receipts();
    let told = format!("pools.app changed: endpoint {} removed, endpoint {} added", two.address, three.address);
    assert_eq!(receipts.last().unwrap().changes, [told]);

    for (text, place, fragment) in [
        ("endpoints = [\n  \"127.0.0.1\",\n]\n", "app.toml:2:3", "an address needs a port"),
        ("endpoints = [", "app.toml:1:14", ""),
        ("endpoints = []\n", "app.toml:1:13", "a pool needs at least one endpoint"),
    ] {
        let before = proxy.receipts().len();
        replace(&file, text);
        eventually("the broken list is refused", || proxy.receipts().len() > before);
        let receipts = proxy.receipts();
        let refused = receipts.last().unwrap();
        let fault = refused.faults.join("\n");
        assert!(!refused.ok && fault.contains(place) && fault.contains(fragment), "{refused:?}");
        assert_eq!(served(&proxy), "three", "the old list goes on");
    }
    fs::remove_file(&file).unwrap();
    assert!(proxy.ask_reload().unwrap_err()[0].contains("app.toml"));
    replace(&file, &list(&[&one]));
    eventually("the mended list serves", || served(&proxy) == "one");
}

#[test]
fn a_list_in_a_config_map_that_is_swapped_goes_live_each_time() {
    let origins = ["one", "two", "three"].map(Origin::named);
    let folder = tempfile::tempdir().unwrap();
    let version = |number: usize| {
        let name = format!("..version{number}");
        fs::create_dir(folder.path().join(&name)).unwrap();
        fs::write(folder.path().join(&name).join("app.toml"), list(&[&origins[number]])).unwrap();
        name
    };
    symlink(version(0), folder.path().join("..data")).unwrap();
    symlink("..data/app.toml", folder.path().join("app.toml")).unwrap();
    let text = config().replace("app.toml", &folder.path().join("app.toml").display().to_string());
    let proxy = Proxy::start(&text);
    assert_eq!(served(&proxy), "one");
    for (number, name) in [(1, "two"), (2, "three")] {
        symlink(version(number), folder.path().join("..data_tmp")).unwrap();
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
        fs::remove_dir_all(folder.path().join(format!("..version{}", number - 1))).unwrap();
        eventually("the swapped list serves", || served(&proxy) == name);
    }
    assert!(proxy.receipts().iter().all(|receipt| receipt.ok), "{:?}", proxy.receipts());
}

/// The first that wait in line are taken off it by a scaler, one after the other, under load.
#[test]
fn endpoints_that_leave_the_list_lose_no_request() {
    let origins = ["one", "two", "three", "four"].map(Origin::named);
    let all: Vec<&Origin> = origins.iter().collect();
    let proxy = Proxy::prepared(&config(), |folder| fs::write(folder.join("app.toml"), list(&all)).unwrap());
    let file = proxy.folder.path().join("app.toml");
    for left in (1..4).rev() {
        replace(&file, &list(&all[..left]));
        eventually("the shorter list is in use", || {
            served(&proxy);
            proxy.receipts().len() == 5 - left
        });
    }
    let heard = origins[3].heard().len();
    for _ in 0..20 {
        assert_eq!(served(&proxy), "one");
    }
    assert_eq!(origins[3].heard().len(), heard);
}
