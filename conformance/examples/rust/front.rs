//! The front of a queue of two services: it accepts the requests and passes each to the store, which is queue.rs.
//! It keeps nothing, so a crash of it loses nothing. Only an answer of the store confirms a message.
use std::io::{self, BufRead, BufReader, Error, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};

/// Reads one whole request or answer: its head, and as many bytes as its content-length says. None at the end of the
/// connection.
fn read_whole(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let (mut whole, mut length) = (Vec::new(), 0);
    loop {
        let start = whole.len();
        if from.read_until(b'\n', &mut whole)? == 0 {
            return if start == 0 { Ok(None) } else { Err(Error::from(ErrorKind::UnexpectedEof)) };
        }
        let line = String::from_utf8_lossy(&whole[start..]);
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse().unwrap_or(0),
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let start = whole.len();
    whole.resize(start + length, 0);
    // This fails if the other side hangs up inside its message. An incomplete message is not passed on.
    from.read_exact(&mut whole[start..])?;
    Ok(Some(whole))
}

/// Serves one connection, request by request, until the client closes it.
fn serve(mut to: TcpStream, store: &str) -> io::Result<()> {
    to.set_nodelay(true)?;
    let mut from = BufReader::new(to.try_clone()?);
    while let Some(request) = read_whole(&mut from)? {
        // Open a new connection for each request: a crash of the store breaks its old connections.
        match TcpStream::connect(store) {
            // The store got nothing. This is a clear no: the producer may send the message elsewhere.
            Err(_) => to.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")?,
            Ok(mut connection) => {
                // An error here ends the connection of the client: the store may have stored the message before it
                // crashed, so the front says neither yes nor no.
                connection.write_all(&request)?;
                let answer = read_whole(&mut BufReader::new(connection))?;
                to.write_all(&answer.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?)?;
            }
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let given: Vec<String> = std::env::args().collect();
    for connection in TcpListener::bind(format!("127.0.0.1:{}", given[1]))?.incoming() {
        let store = format!("127.0.0.1:{}", given[2]);
        // Ignore the result: an error of one connection does not affect the others.
        std::thread::spawn(move || connection.and_then(|stream| serve(stream, &store)));
    }
    Ok(())
}
