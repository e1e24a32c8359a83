//! A name server of the story's own, on UDP: it says what it is told to, for as long as it is told to.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// A record's data.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Address(IpAddr),
    Service { priority: u16, weight: u16, port: u16, target: &'static str },
}

/// What is said of a name, or of all.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// These records with this TTL in seconds; of a kind that is not among them, that there is none.
    Records(u32, Vec<Record>),
    /// This RCODE (2: SERVFAIL, 3: NXDOMAIN, 5: REFUSED), or 0 and no record.
    Code(u8),
    Silence,
    /// Records, and silence where AAAA is asked for.
    SilentOnAaaa(u32, Vec<Record>),
}

#[derive(Default)]
struct Zone {
    names: HashMap<String, Reply>,
    /// In place of what the names say.
    all: Option<Reply>,
    asked: Vec<String>,
}

/// Runs as long as the process does.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl Dns {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let dns = Self { address: socket.local_addr().unwrap(), zone: Arc::default() };
        let zone = dns.zone.clone();
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                if let Some(answer) = answer(&query[..length], &mut zone.lock().unwrap()) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        dns
    }

    /// The `[dns]` table that asks it.
    pub(crate) fn config(&self) -> String {
        format!("[dns]\nservers = [\"{}\"]\ntimeout = \"600ms\"\n", self.address)
    }

    pub(crate) fn say(&self, name: &str, reply: Reply) {
        self.zone.lock().unwrap().names.insert(name.to_owned(), reply);
    }

    /// Addresses of a name with a TTL of one second.
    pub(crate) fn point(&self, name: &str, addresses: &[&str]) {
        let records = addresses.iter().map(|text| Record::Address(text.parse().unwrap())).collect();
        self.say(name, Reply::Records(1, records));
    }

    /// What is said of all names; none: what is theirs.
    pub(crate) fn fail(&self, with: Option<Reply>) {
        self.zone.lock().unwrap().all = with;
    }

    /// How often a name was asked for.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.zone.lock().unwrap().asked.iter().filter(|asked| *asked == name).count()
    }
}

/// RFC 1035 §4.1: one question, and the records that point back to its name.
fn answer(query: &[u8], zone: &mut Zone) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let (name, kind) = (labels.join("."), u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?));
    let question = query.get(12..at + 4)?;
    let reply = zone.all.clone().or_else(|| zone.names.get(&name).cloned()).unwrap_or(Reply::Code(3));
    zone.asked.push(name);
    let (code, ttl, records) = match reply {
        Reply::Records(ttl, records) => (0, ttl, records),
        Reply::Code(code) => (code, 0, Vec::new()),
        Reply::Silence => return None,
        Reply::SilentOnAaaa(..) if kind == AAAA => return None,
        Reply::SilentOnAaaa(ttl, records) => (0, ttl, records),
    };
    let records: Vec<Vec<u8>> = records.iter().filter_map(|record| data(record, kind)).collect();
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    answer.extend(question);
    for data in records {
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend((data.len() as u16).to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}

/// The record's data where it is of that kind.
fn data(record: &Record, kind: u16) -> Option<Vec<u8>> {
    match record {
        Record::Address(IpAddr::V4(address)) if kind == A => Some(address.octets().to_vec()),
        Record::Address(IpAddr::V6(address)) if kind == AAAA => Some(address.octets().to_vec()),
        Record::Service { priority, weight, port, target } if kind == SRV => {
            let mut data = [priority.to_be_bytes(), weight.to_be_bytes(), port.to_be_bytes()].concat();
            for label in target.split('.') {
                data.push(label.len() as u8);
                data.extend(label.as_bytes());
            }
            data.push(0);
            Some(data)
        }
        _ => None,
    }
}
