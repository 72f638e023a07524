//! A durable message queue over HTTP in 200 lines: a starting point for authors. It needs nothing but Rust's standard library.
//!
//! The queue is one log of records. Each record has its length and a checksum, and is synced before it is answered:
//!
//!     type 1 byte ('P' put, 'D' done), length of id 2, length of body 4, id, body, CRC-32 of all that (big-endian)
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_secs(2);

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ *byte as u32, |s, _| (s >> 1) ^ (0xedb8_8320 & (s & 1).wrapping_neg()))
    })
}

fn encode(kind: u8, id: &str, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind];
    record.extend((id.len() as u16).to_be_bytes());
    record.extend((body.len() as u32).to_be_bytes());
    record.extend(id.as_bytes());
    record.extend(body);
    record.extend(crc32(&record).to_be_bytes());
    record
}

/// Returns the type, id, body and size of the first record. None if a crash has torn it, so that it was never confirmed.
fn decode(log: &[u8]) -> Option<(u8, String, Vec<u8>, usize)> {
    let middle = 7 + u16::from_be_bytes(log.get(1..3)?.try_into().ok()?) as usize;
    let end = middle + u32::from_be_bytes(log.get(3..7)?.try_into().ok()?) as usize;
    let sum = u32::from_be_bytes(log.get(end..end + 4)?.try_into().ok()?);
    let id = String::from_utf8(log[7..middle].to_vec()).ok()?;
    (sum == crc32(&log[..end])).then(|| (log[0], id, log[middle..end].to_vec(), end + 4))
}

struct Queue {
    log: File,
    bodies: HashMap<String, Vec<u8>>,
    waiting: VecDeque<String>,
    leases: HashMap<String, (String, Instant)>,
    leased: u64,
}

impl Queue {
    fn open(data: &Path) -> io::Result<Queue> {
        let (path, fresh) = (data.join("log"), data.join("log.new"));
        let old = fs::read(&path).unwrap_or_default();
        let (mut bodies, mut order, mut at) = (HashMap::new(), Vec::new(), 0);
        while let Some((kind, id, body, size)) = decode(&old[at..]) {
            at += size;
            if kind == b'P' {
                order.push(id.clone());
                bodies.insert(id, body);
            } else {
                bodies.remove(&id);
            }
        }
        // A message that was stored again after it was consumed has two records.
        let mut seen = HashSet::new();
        order.retain(|id| bodies.contains_key(id) && seen.insert(id.clone()));
        // Write the live messages to a new log, under another name until all of it is on the disk. Then no record is ever
        // appended behind a torn record, or behind a record whose sync failed.
        let mut log = File::create(&fresh)?;
        for id in &order {
            log.write_all(&encode(b'P', id, &bodies[id]))?;
        }
        log.sync_all()?;
        fs::rename(&fresh, &path)?;
        // Sync the directory: without it the new name could be lost in a power cut.
        File::open(data)?.sync_all()?;
        Ok(Queue { log, bodies, waiting: order.into(), leases: HashMap::new(), leased: 0 })
    }

    fn append(&mut self, record: &[u8]) {
        if let Err(error) = self.log.write_all(record).and_then(|()| self.log.sync_all()) {
            // Exit: the content of the disk is unknown now, and a second sync could succeed without writing the data. The
            // next start reads the log from the disk.
            eprintln!("{error}");
            std::process::exit(1);
        }
    }

    fn put(&mut self, id: String, body: Vec<u8>) {
        // A producer repeats a submit if the answer was lost. Store the message only once.
        if self.bodies.contains_key(&id) {
            return;
        }
        self.append(&encode(b'P', &id, &body));
        self.waiting.push_back(id.clone());
        self.bodies.insert(id, body);
    }

    fn lease(&mut self) -> Option<(String, String, Vec<u8>)> {
        let now = Instant::now();
        let waiting = &mut self.waiting;
        self.leases.retain(|_, (id, until)| {
            let runs = *until > now;
            if !runs {
                waiting.push_back(id.clone());
            }
            runs
        });
        let id = self.waiting.pop_front()?;
        self.leased += 1;
        let key = format!("{}-{}", std::process::id(), self.leased);
        self.leases.insert(key.clone(), (id.clone(), now + LEASE));
        let body = self.bodies[&id].clone();
        Some((key, id, body))
    }

    fn consume(&mut self, key: &str) -> bool {
        let (id, _) = match self.leases.remove(key) {
            Some(held) => held,
            None => return false,
        };
        self.append(&encode(b'D', &id, b""));
        self.bodies.remove(&id);
        true
    }
}

type Shared = Arc<(Mutex<Queue>, Condvar)>;

fn answer(to: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> io::Result<()> {
    let length = if status == "204 No Content" { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let mut whole = format!("HTTP/1.1 {status}\r\n{headers}{length}\r\n").into_bytes();
    whole.extend(body);
    to.write_all(&whole)
}

fn wait_for_lease(shared: &Shared, wait: Duration) -> Option<(String, String, Vec<u8>)> {
    let (end, mut queue) = (Instant::now() + wait, shared.0.lock().unwrap());
    loop {
        let leased = queue.lease();
        let left = end.saturating_duration_since(Instant::now());
        if leased.is_some() || left.is_zero() {
            return leased;
        }
        queue = shared.1.wait_timeout(queue, left.min(Duration::from_millis(100))).unwrap().0;
    }
}

/// Serves one connection, request by request, until the client closes it.
fn serve(mut to: TcpStream, shared: Shared) -> io::Result<()> {
    to.set_nodelay(true)?;
    let mut from = BufReader::new(to.try_clone()?);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if from.read_line(&mut first)? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().unwrap_or(0),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        // This fails if the producer hangs up inside its message. Then nothing was submitted.
        from.read_exact(&mut body)?;
        let mut words = first.split_whitespace();
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let name = path.rsplit('/').next().unwrap_or("");
        match method {
            "PUT" => {
                shared.0.lock().unwrap().put(name.to_string(), body);
                shared.1.notify_one();
                answer(&mut to, "201 Created", "", b"")?;
            }
            "POST" => {
                let wait = path.split("wait=").nth(1).and_then(|ms| ms.parse().ok()).unwrap_or(0);
                match wait_for_lease(&shared, Duration::from_millis(wait)) {
                    Some((key, id, body)) => answer(&mut to, "200 OK", &format!("message-id: {id}\r\nlease: {key}\r\n"), &body)?,
                    None => answer(&mut to, "204 No Content", "", b"")?,
                }
            }
            "DELETE" if shared.0.lock().unwrap().consume(name) => answer(&mut to, "204 No Content", "", b"")?,
            "GET" if path == "/ready" => answer(&mut to, "200 OK", "", b"")?,
            _ => answer(&mut to, "404 Not Found", "", b"")?,
        }
    }
}

fn main() -> io::Result<()> {
    let given: Vec<String> = std::env::args().collect();
    let queue = Queue::open(Path::new(&given[1]))?;
    let shared: Shared = Arc::new((Mutex::new(queue), Condvar::new()));
    for connection in TcpListener::bind(format!("127.0.0.1:{}", given[2]))?.incoming() {
        let shared = shared.clone();
        // Ignore the result: an error of one connection does not affect the others.
        std::thread::spawn(move || connection.and_then(|stream| serve(stream, shared)));
    }
    Ok(())
}
