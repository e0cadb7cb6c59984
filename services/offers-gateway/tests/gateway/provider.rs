//! A server on a free port that plays a provider: it answers as the provider does, or with
//! whatever can go wrong, and remembers what it was asked and how much of its answers was taken.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// What the server was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    Right,
    /// Nothing, once it is released.
    Slow,
    /// It accepts, and says nothing.
    Silent,
    /// It ends the connection in the middle of the body.
    Half,
    /// Its body never ends, a few bytes at a time.
    Endless,
    /// Its body has 100 MB, as it says at its beginning.
    HugeSaid,
    /// Its body has 100 MB, as is seen when they have come.
    Huge,
    /// It answers with this status, these header lines, and this body.
    Answer(&'static str, &'static str, &'static str),
    /// Where everything leads to itself by way of another address.
    Circle,
    /// It sends everyone to another server.
    Elsewhere(SocketAddr),
    /// Its rows are of types that nobody expects.
    WrongTypes,
    /// It says that nothing has changed.
    Unchanged,
    /// Where the path or the question has these words, it refuses; all else is well.
    RefusedWhere(&'static str),
    /// Nobody listens.
    Gone,
}

/// What a provider answers when all is well, and when its types are wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) content_type: &'static str,
    pub(crate) right: fn(&Asked) -> String,
    pub(crate) wrong: &'static str,
}

/// The server; gone when it is dropped.
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    script: Script,
    fault: Mutex<Fault>,
    changed: Condvar,
    asked: Mutex<Vec<Asked>>,
    sent: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
    over: AtomicBool,
}

impl Provider {
    pub(crate) fn start(script: Script, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let gone = matches!(fault, Fault::Gone);
        let state = Arc::new(State {
            script,
            fault: Mutex::new(fault),
            changed: Condvar::new(),
            asked: Mutex::default(),
            sent: AtomicU64::new(0),
            open: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.over.load(Ordering::Relaxed) {
                    return;
                }
                let state = Arc::clone(&serving);
                let stream = stream.unwrap();
                state.open.lock().unwrap().push(stream.try_clone().unwrap());
                thread::spawn(move || serve(&state, &stream));
            }
        });
        let provider = Self { address, state };
        if gone {
            provider.close();
        }
        provider
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on, also for those who wait, this goes wrong.
    pub(crate) fn set(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
        self.state.changed.notify_all();
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// Nobody listens any longer, and open connections end.
    pub(crate) fn close(&self) {
        self.state.over.store(true, Ordering::Relaxed);
        self.set(Fault::Right);
        // The listener goes when it is woken; whoever is connected then finds nobody.
        let _ = TcpStream::connect(self.address);
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        while TcpStream::connect(self.address).is_ok() {
            thread::yield_now();
        }
    }

    /// Bytes of bodies that went out.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.close();
    }
}

/// Answers one request after the other until either side has had enough.
fn serve(state: &State, stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader) {
        state.asked.lock().unwrap().push(asked.clone());
        if answer(state, stream, &asked).is_none() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Asked> {
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).unwrap();
    Some(Asked {
        path,
        headers,
        body,
    })
}

/// Answers; none if nothing more can be said on this connection.
fn answer(state: &State, stream: &TcpStream, asked: &Asked) -> Option<()> {
    let script = state.script;
    let fault = state.fault.lock().unwrap().clone();
    let right = || (script.right)(asked);
    let whole = |status: &str, more: &str, body: &str| {
        let length = body.len();
        send(
            state,
            stream,
            &format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n{body}"),
        )
    };
    let typed = format!("Content-Type: {}\r\n", script.content_type);
    match fault {
        Fault::Right => whole(
            "200 OK",
            &format!("{typed}ETag: \"one\"\r\nLast-Modified: Wed, 21 Oct 2026 07:28:00 GMT\r\n"),
            &right(),
        ),
        Fault::Slow => {
            let held = state.fault.lock().unwrap();
            drop(
                state
                    .changed
                    .wait_while(held, |fault| matches!(fault, Fault::Slow))
                    .unwrap(),
            );
            whole("200 OK", &typed, &right())
        }
        Fault::Answer(status, headers, body) => whole(status, headers, body),
        Fault::Circle => {
            let back = asked.path.ends_with("/there");
            let to = if back { "/back" } else { "/there" };
            whole("307 Temporary Redirect", &format!("Location: {to}\r\n"), "")
        }
        Fault::Elsewhere(address) => whole(
            "307 Temporary Redirect",
            &format!("Location: http://{address}{}\r\n", asked.path),
            "",
        ),
        Fault::WrongTypes => whole("200 OK", &typed, script.wrong),
        Fault::Unchanged => whole("304 Not Modified", "", ""),
        Fault::RefusedWhere(words) => {
            if asked.path.contains(words) || asked.body.contains(words) {
                whole("403 Forbidden", "", "")
            } else {
                whole("200 OK", &typed, &right())
            }
        }
        Fault::Silent
        | Fault::Half
        | Fault::Endless
        | Fault::HugeSaid
        | Fault::Huge
        | Fault::Gone => broken(state, stream, &typed, &right(), &fault),
    }
}

/// Answers with what is no whole answer; `body` would be one.
fn broken(state: &State, stream: &TcpStream, typed: &str, body: &str, fault: &Fault) -> Option<()> {
    let head = |more: &str| {
        let head = format!("HTTP/1.1 200 OK\r\n{typed}{more}\r\n\r\n");
        send(state, stream, &head)
    };
    let sized = |length: usize| format!("Content-Length: {length}");
    const CHUNKED: &str = "Transfer-Encoding: chunked";
    match fault {
        Fault::Half => {
            head(&sized(body.len()))?;
            send(state, stream, &body[..body.len() / 2])?;
        }
        Fault::Endless => {
            head(CHUNKED)?;
            while !state.over.load(Ordering::Relaxed) {
                send(state, stream, "5\r\n[    \r\n")?;
                thread::park_timeout(Duration::from_millis(20));
            }
        }
        Fault::HugeSaid => {
            head(&sized(100_000_000))?;
            huge(state, stream, "", "")?;
        }
        Fault::Huge => {
            head(CHUNKED)?;
            huge(state, stream, "F4240\r\n", "\r\n")?;
        }
        // Silent until the client has had enough.
        Fault::Silent
        | Fault::Right
        | Fault::Slow
        | Fault::Answer(..)
        | Fault::Circle
        | Fault::Elsewhere(_)
        | Fault::WrongTypes
        | Fault::Unchanged
        | Fault::RefusedWhere(_)
        | Fault::Gone => {
            let _ = (&mut &*stream).read(&mut [0]);
        }
    }
    None
}

/// 100 MB, as far as they are taken.
fn huge(state: &State, stream: &TcpStream, before: &str, after: &str) -> Option<()> {
    let chunk = format!("{before}{}{after}", " ".repeat(1_000_000));
    for _ in 0..100 {
        send(state, stream, &chunk)?;
    }
    None
}

fn send(state: &State, mut stream: &TcpStream, text: &str) -> Option<()> {
    for piece in text.as_bytes().chunks(64 << 10) {
        stream.write_all(piece).ok()?;
        state.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    Some(())
}
