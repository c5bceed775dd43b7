//! Peers and stores that answer far more than anybody asked for.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{channel, Sender};
use std::time::{Duration, Instant};

use common::in_child;
use transfer_engine::engine::Engine;
use transfer_engine::error::{Class, Code};

/// Bytes that a server here sends at most, when nobody stops it.
const FLOOD: usize = 512 << 20;
const SETTINGS: &[(&str, &str)] = &[("MC_METADATA_MAX_BYTES", "8388608"), ("MC_LOG_LEVEL", "ERROR")];

fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A server whose connections are served by `serve`, one thread each. Returns its port.
fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    port
}

/// Sends bytes until the other end has had enough.
fn flood(stream: &mut TcpStream, byte: u8) {
    let chunk = vec![byte; 1 << 20];
    for _ in 0..FLOOD / chunk.len() {
        if stream.write_all(&chunk).is_err() {
            return;
        }
    }
}

/// Reads one command of Redis' protocol: its words.
fn command(reader: &mut impl std::io::BufRead) -> Option<Vec<Vec<u8>>> {
    let mut number = |sign: char| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let count = line.strip_prefix(sign)?.trim().parse::<usize>().ok()?;
        Some(count)
    };
    let count = number('*')?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let len: usize = line.strip_prefix('$')?.trim().parse().ok()?;
        let mut word = vec![0; len + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(len);
        words.push(word);
    }
    Some(words)
}

/// Accepts every write, and answers a read with a gigabyte.
fn redis(stream: TcpStream) {
    let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(words) = command(&mut reader) {
        if words[0] == b"GET" {
            stream.write_all(b"$1073741824\r\n").unwrap();
            return flood(&mut stream, b'x');
        }
        let answer: &[u8] = if words[0] == b"EVAL" { b"$1\r\nd\r\n" } else { b"+OK\r\n" };
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

/// Takes every write, and answers every read of a key but the address with an endless body.
fn http(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    if head.starts_with("GET") && head.contains("huge") {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        return flood(&mut stream, b'[');
    }
    let status = if head.starts_with("GET") { "404 Not Found" } else { "200 OK" };
    let _ = stream
        .write_all(format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").as_bytes());
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn p39_a_store_that_floods_is_cut_off_at_the_limit() {
    if in_child("p39_a_store_that_floods_is_cut_off_at_the_limit", SETTINGS) {
        return;
    }
    for (kind, serve) in [("redis", redis as fn(TcpStream)), ("http", http)] {
        let url = match (kind, server(serve)) {
            ("redis", port) => format!("redis://127.0.0.1:{port}"),
            (_, port) => format!("http://127.0.0.1:{port}/metadata"),
        };
        let engine = Engine::create(&url, "me", false).map_err(|e| e.to_string()).unwrap();
        engine.install_transport("tcp", None).map_err(|e| e.to_string()).unwrap();
        let before = resident();
        let error = engine.open_segment("huge").unwrap_err();
        assert!(error.text().contains("MC_METADATA_MAX_BYTES"), "{error}");
        assert_eq!((error.code(), error.kind()), (Code::Metadata, Class::Rejected), "{error}");
        let more = resident().saturating_sub(before);
        assert!(more < 100 << 20, "{kind}: {more} bytes");
        engine.destroy();
    }
}

/// Reads a request frame of the handshake port.
fn request(stream: &mut TcpStream) {
    let mut head = [0; 8];
    stream.read_exact(&mut head).unwrap();
    stream.read_exact(&mut vec![0; u64::from_le_bytes(head) as usize]).unwrap();
}

#[test]
fn p39_a_peer_that_claims_more_than_the_limit_is_refused_unread() {
    if in_child("p39_a_peer_that_claims_more_than_the_limit_is_refused_unread", SETTINGS) {
        return;
    }
    let port = server(|mut stream| {
        request(&mut stream);
        let _ = stream.write_all(&(128u64 << 20).to_le_bytes());
        let _ = stream.write_all(&[1]);
        flood(&mut stream, b'[');
    });
    let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).map_err(|e| e.to_string()).unwrap();
    engine.install_transport("tcp", None).map_err(|e| e.to_string()).unwrap();
    let before = resident();
    let error = engine.open_segment(&format!("127.0.0.1:{port}")).unwrap_err();
    assert!(error.text().contains("MC_METADATA_MAX_BYTES"), "{error}");
    assert!(resident().saturating_sub(before) < 50 << 20);
    engine.destroy();
}

/// Answers with `text`, and tells when all of it is on its way.
fn descriptor(text: &str, sent: Sender<()>) -> impl Fn(TcpStream) + Clone + Send + 'static {
    let mut frame = (text.len() as u64 + 1).to_le_bytes().to_vec();
    frame.push(1);
    frame.extend_from_slice(text.as_bytes());
    move |mut stream| {
        request(&mut stream);
        stream.write_all(&frame).unwrap();
        let _ = sent.send(());
        // Until the client closes.
        let _ = stream.read(&mut [0]);
    }
}

#[test]
fn p12_a_long_descriptor_delays_nobody_while_it_is_read() {
    if in_child("p12_a_long_descriptor_delays_nobody_while_it_is_read", SETTINGS) {
        return;
    }
    let text = |buffers: usize| {
        let buffer = |n: usize| format!("{{\"name\":\"cpu:0\",\"addr\":{},\"length\":8}}", (n + 1) * 4096);
        let buffers: Vec<_> = (0..buffers).map(buffer).collect();
        format!(
            "{{\"name\":\"n{}\",\"protocol\":\"tcp\",\"tcp_data_port\":1,\"buffers\":[{}]}}",
            buffers.len(),
            buffers.join(",")
        )
    };
    let (sent, arrived) = channel();
    let large = server(descriptor(&text(150_000), sent.clone()));
    let small = server(descriptor(&text(1), channel().0));
    let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).map_err(|e| e.to_string()).unwrap();
    engine.install_transport("tcp", None).map_err(|e| e.to_string()).unwrap();
    let (ended, order) = channel();
    std::thread::scope(|threads| {
        let (slow, engine_of) = (ended.clone(), engine.clone());
        threads.spawn(move || {
            let id =
                engine_of.open_segment(&format!("127.0.0.1:{large}")).map_err(|e| e.to_string()).unwrap();
            slow.send("large").unwrap();
            assert_eq!(engine_of.segment_buffers(id, |_, _, _| ()).unwrap(), 150_000);
        });
        arrived.recv().unwrap();
        engine.open_segment(&format!("127.0.0.1:{small}")).map_err(|e| e.to_string()).unwrap();
        ended.send("small").unwrap();
    });
    assert_eq!(order.recv().unwrap(), "small");
    let begun = Instant::now();
    engine.destroy();
    assert!(begun.elapsed() < Duration::from_secs(2));
}
