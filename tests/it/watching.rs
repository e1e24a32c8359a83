//! The file watch over real files: every way in which people and tools replace a config.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use headgate::base::clock;
use headgate::config::model::{PoolTls, ServerVerification};
use headgate::control::receipts::Cause;
use headgate::tls::client::client_config;
use rustls::pki_types::ServerName;

use crate::kit::{Client, Origin, Proxy, answer_to, eventually};

fn served_by(proxy: &Proxy) -> String {
    answer_to(proxy.address(), "GET", "/").body
}

/// Replaces a file as careful tools do.
fn replace(path: &Path, text: &str) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, path).unwrap();
}

/// A config that names its origin; it lives where the story wants.
fn config(origin: &Origin) -> String {
    format!(
        "config_version = 1\n{}",
        Proxy::simple(&[origin.address], "").replace("output = \"@FOLDER/access.log\"", "format = \"off\"")
    )
}

#[test]
fn a_plain_overwrite_and_an_atomic_rename_go_live() {
    let origins = ["one", "two", "three"].map(Origin::named);
    let proxy = Proxy::to(&[origins[0].address]);
    fs::write(&proxy.config, config(&origins[1])).unwrap();
    eventually("the overwritten config serves", || served_by(&proxy) == "two");
    replace(&proxy.config, &config(&origins[2]));
    eventually("the renamed config serves", || served_by(&proxy) == "three");
    // The watch has not stayed with the file that was renamed over.
    fs::write(&proxy.config, config(&origins[0])).unwrap();
    eventually("the config overwritten once more serves", || served_by(&proxy) == "one");
    assert!(proxy.receipts()[1..].iter().all(|receipt| receipt.ok && receipt.cause == Cause::File));
}

#[test]
fn a_config_beside_a_log_that_never_rests_goes_live() {
    let origins = ["one", "two", "three"].map(Origin::named);
    let proxy = Proxy::to(&[origins[0].address]);
    // Two of them, so that the kernel could not join what it tells.
    let mut logs = ["a.log", "b.log"].map(|name| fs::File::create(proxy.folder.path().join(name)).unwrap());
    let goes_on = Arc::new(());
    let seen = Arc::downgrade(&goes_on);
    let writer = std::thread::spawn(move || {
        while seen.strong_count() > 0 {
            logs.iter_mut().for_each(|log| log.write_all(b"line\n").unwrap());
        }
    });
    fs::write(&proxy.config, config(&origins[1])).unwrap();
    eventually("the overwritten config serves", || served_by(&proxy) == "two");
    replace(&proxy.config, &config(&origins[2]));
    eventually("the renamed config serves", || served_by(&proxy) == "three");
    drop(goes_on);
    writer.join().unwrap();
}

#[test]
fn a_watch_goes_with_the_name_and_not_with_what_had_it() {
    let origins = ["one", "two", "three", "four"].map(Origin::named);
    let folder = tempfile::tempdir().unwrap();
    let (dir, path) = (folder.path().join("conf"), folder.path().join("conf/headgate.toml"));
    let fill = |dir: &Path, origin: &Origin| {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("headgate.toml"), config(origin)).unwrap();
    };
    fill(&dir, &origins[0]);
    let proxy = Proxy::run(path.clone(), tempfile::tempdir().unwrap());
    // The directory as a whole.
    fill(&folder.path().join("new"), &origins[1]);
    fs::rename(&dir, folder.path().join("old")).unwrap();
    fs::rename(folder.path().join("new"), &dir).unwrap();
    eventually("the new directory's config serves", || served_by(&proxy) == "two");
    // The file, where the old one stays under another name.
    fs::rename(&path, dir.join("headgate.toml.bak")).unwrap();
    fs::write(&path, config(&origins[2])).unwrap();
    eventually("the new file serves", || served_by(&proxy) == "three");
    // Half of the next one is not taken, whatever else happens in the directory.
    let whole = config(&origins[3]);
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&whole.as_bytes()[..whole.len() - 12]).unwrap();
    fs::File::create(dir.join("another")).unwrap();
    for_a_second(|| assert_eq!(served_by(&proxy), "three"));
    file.write_all(&whole.as_bytes()[whole.len() - 12..]).unwrap();
    drop(file);
    eventually("the whole file serves", || served_by(&proxy) == "four");
    assert!(proxy.receipts().iter().all(|receipt| receipt.ok), "{:?}", proxy.receipts());
}

#[test]
fn a_config_map_that_is_swapped_goes_live_each_time() {
    let origins = ["one", "two", "three"].map(Origin::named);
    let folder = tempfile::tempdir().unwrap();
    let version = |number: usize| {
        let name = format!("..version{number}");
        fs::create_dir(folder.path().join(&name)).unwrap();
        fs::write(folder.path().join(&name).join("headgate.toml"), config(&origins[number])).unwrap();
        name
    };
    // As the kubelet does it: `headgate.toml` → `..data/headgate.toml`, and `..data` is what is swapped.
    symlink(version(0), folder.path().join("..data")).unwrap();
    let path = folder.path().join("headgate.toml");
    symlink("..data/headgate.toml", &path).unwrap();
    let proxy = Proxy::run(path, tempfile::tempdir().unwrap());
    assert_eq!(served_by(&proxy), "one");
    for (number, name) in [(1, "two"), (2, "three")] {
        symlink(version(number), folder.path().join("..data_tmp")).unwrap();
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
        fs::remove_dir_all(folder.path().join(format!("..version{}", number - 1))).unwrap();
        eventually("the swapped config serves", || served_by(&proxy) == name);
    }
    assert!(proxy.receipts().iter().all(|receipt| receipt.ok), "{:?}", proxy.receipts());
}

#[test]
fn included_files_that_come_change_and_go_are_noticed() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let folder = tempfile::tempdir().unwrap();
    let include = folder.path().join("conf.d");
    fs::create_dir(&include).unwrap();
    let path = folder.path().join("headgate.toml");
    fs::write(&path, format!("include = [\"conf.d/*.toml\"]\n{}", config(&one))).unwrap();
    let proxy = Proxy::run(path, tempfile::tempdir().unwrap());
    let status = |target: &str| answer_to(proxy.address(), "GET", target).status;
    let respond = |status: u16| format!("[routes.more]\nmatch.path = \"/more\"\nrespond = {{ status = {status} }}\n");
    // Nothing was in the directory yet.
    fs::write(include.join("more.toml"), respond(403)).unwrap();
    eventually("the new file's route is there", || status("/more") == 403);
    fs::write(include.join("more.toml"), respond(410)).unwrap();
    eventually("the changed file's route is there", || status("/more") == 410);
    fs::write(include.join("other.toml"), format!("[pools.two]\nendpoints = [\"{}\"]\n", two.address)).unwrap();
    eventually("the other file's pool is there", || {
        proxy.receipts().last().is_some_and(|receipt| receipt.changes == ["pools.two added"])
    });
    fs::remove_file(include.join("more.toml")).unwrap();
    eventually("the removed file's route is gone", || status("/more") == 200);
}

#[test]
fn somebody_elses_file_in_the_same_directory_may_grow() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::to(&[one.address]);
    let mut log = fs::File::create(proxy.folder.path().join("some.log")).unwrap();
    for _ in 0..200 {
        log.write_all(b"a line\n").unwrap();
        assert_eq!(served_by(&proxy), "one");
    }
    // Saved again without a change, as editors do.
    fs::write(&proxy.config, proxy.filled(&Proxy::simple(&[one.address], ""))).unwrap();
    fs::File::create(proxy.folder.path().join("another.log")).unwrap();
    for_a_second(|| assert_eq!(served_by(&proxy), "one"));
    replace(&proxy.config, &config(&two));
    eventually("the real change serves", || served_by(&proxy) == "two");
    assert_eq!(proxy.receipts().len(), 2, "{:?}", proxy.receipts());
}

/// What holds throughout: longer than the watch waits for quiet.
fn for_a_second(mut holds: impl FnMut()) {
    let began = clock::now();
    while began.elapsed() < Duration::from_secs(1) {
        holds();
    }
}

#[test]
fn a_half_written_config_never_goes_live() {
    let (old, half, new) = (Origin::named("old"), Origin::named("half"), Origin::named("new"));
    let proxy = Proxy::to(&[old.address]);
    proxy.ask_reload().expect("the watch is there");
    // The first half is a config in its own right; so is nothing at all to a hasty reader.
    let whole = format!("{}[pools.new]\nendpoints = [\"{}\"]\n", config(&half), new.address);
    let whole = format!("{whole}[routes.new]\nmatch.path = \"/new\"\npool = \"new\"\n");
    for (round, cut) in [(0, config(&half).len()), (1, config(&half).len() - 12)] {
        let mut file = fs::File::create(&proxy.config).unwrap();
        file.write_all(&whole.as_bytes()[..cut]).unwrap();
        file.flush().unwrap();
        let before = if round == 0 { "old" } else { "half" };
        for_a_second(|| assert_eq!(served_by(&proxy), before));
        assert_eq!(proxy.receipts().len(), 2 + round, "half a file is neither applied nor refused");
        file.write_all(&whole.as_bytes()[cut..]).unwrap();
        // Another text in the second round, so that there is something to wait for.
        file.write_all("# again\n".repeat(round).as_bytes()).unwrap();
        drop(file);
        eventually("the whole config serves", || proxy.receipts().len() == 3 + round);
        assert_eq!(answer_to(proxy.address(), "GET", "/new").body, "new");
    }
    assert!(proxy.receipts().iter().all(|receipt| receipt.ok), "{:?}", proxy.receipts());
}

/// A self-signed pair as PEM.
fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// The certificate that a listener shows, as PEM without its line breaks.
fn shown(proxy: &Proxy) -> Vec<u8> {
    let trusting = PoolTls { verify: ServerVerification::Off, server_name: None };
    let config: Arc<rustls::ClientConfig> = client_config(&trusting).unwrap();
    let name = ServerName::try_from("a.example").unwrap();
    let mut connection = rustls::ClientConnection::new(config, name).unwrap();
    let mut stream = std::net::TcpStream::connect(proxy.address()).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).expect("no handshake fails");
    }
    connection.peer_certificates().unwrap()[0].to_vec()
}

fn der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn a_certificate_that_changes_file_by_file_goes_live_without_a_fault_between() {
    let origin = Origin::named("app");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf { folder.path().join(name) };
    let (first, second, third) = (pair(), pair(), pair());
    fs::write(file("a.pem"), &first.0).unwrap();
    fs::write(file("a.key"), &first.1).unwrap();
    let tls = "address = \"127.0.0.1:0\"\ntls.certificates = [{ cert = \"a.pem\", key = \"a.key\" }]\n";
    fs::write(file("headgate.toml"), config(&origin).replace("address = \"127.0.0.1:0\"\n", tls)).unwrap();
    let proxy = Proxy::run(file("headgate.toml"), tempfile::tempdir().unwrap());
    assert_eq!(shown(&proxy), der(&first.0));

    // One after the other, with the watch's quiet time between: the pair is half changed when it looks.
    replace(&file("a.pem"), &second.0);
    let began = clock::now();
    while began.elapsed() < Duration::from_millis(500) {
        assert_eq!(shown(&proxy), der(&first.0));
    }
    replace(&file("a.key"), &second.1);
    eventually("the second certificate is shown", || shown(&proxy) == der(&second.0));

    // Taken away before the new ones come.
    fs::remove_file(file("a.key")).unwrap();
    fs::remove_file(file("a.pem")).unwrap();
    let began = clock::now();
    while began.elapsed() < Duration::from_millis(500) {
        assert_eq!(shown(&proxy), der(&second.0));
    }
    fs::write(file("a.pem"), &third.0).unwrap();
    fs::write(file("a.key"), &third.1).unwrap();
    eventually("the third certificate is shown", || shown(&proxy) == der(&third.0));
    let receipts = proxy.receipts();
    assert!(receipts.len() == 3 && receipts.iter().all(|receipt| receipt.ok), "{receipts:?}");

    // A pair that stays torn is a fault in the end, and told.
    replace(&file("a.pem"), &first.0);
    eventually("the torn pair is refused", || proxy.receipts().last().is_some_and(|receipt| !receipt.ok));
    let receipts = proxy.receipts();
    assert!(receipts[3].faults[0].contains("does not belong to the key"), "{receipts:?}");
    assert_eq!(shown(&proxy), der(&third.0));
}

#[test]
fn connections_stay_over_reloads_by_file() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Proxy::to(&[one.address]);
    let mut client = Client::connect(proxy.address());
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.receive().expect("the connection stays").body
    };
    assert_eq!(ask(), "one");
    replace(&proxy.config, &config(&two));
    eventually("the new config serves on the old connection", || ask() == "two");
}
