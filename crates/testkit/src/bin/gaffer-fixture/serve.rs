//! Programs that others ask: readiness by the notify socket, and a tiny HTTP server for probes.

use crate::arguments::Arguments;
use crate::{idle, output, pause_for};
use std::ffi::c_int;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;

/// `READY=1` after so many milliseconds; with `--watchdog-ms` then `WATCHDOG=1` at that pace.
pub fn ready_after(arguments: &mut Arguments) -> Result<c_int, String> {
    let ms = arguments.required_number()?;
    let watchdog_ms = arguments.number("--watchdog-ms")?;
    pause_for(ms);
    notify("READY=1")?;
    output::write_all(1, b"ready\n");
    match watchdog_ms {
        None => idle(),
        Some(every) => loop {
            pause_for(every);
            notify("WATCHDOG=1")?;
        },
    }
}

fn notify(text: &str) -> Result<(), String> {
    let path = std::env::var_os("NOTIFY_SOCKET").ok_or("NOTIFY_SOCKET is not set")?;
    let socket = UnixDatagram::unbound().map_err(|error| error.to_string())?;
    let sent = socket.send_to(text.as_bytes(), &path);
    sent.map(|_| ())
        .map_err(|error| format!("{}: {error}", path.to_string_lossy()))
}

/// Answers every request with one status. `--status-file` is read anew for each, so that a test can change it.
/// Port 0 and no `--port` mean `$PORT`, and a free one without it; the port is said on stdout.
pub fn http(arguments: &mut Arguments) -> Result<c_int, String> {
    let asked = arguments.number("--port")?.unwrap_or(0);
    let port = match asked {
        0 => std::env::var("PORT")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
        port => port,
    };
    let status = arguments.number("--status")?.unwrap_or(200);
    let status_file = arguments.text("--status-file");
    let delay_ms = arguments.number("--delay-ms")?.unwrap_or(0);
    let port = u16::try_from(port).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(|error| format!("port {port}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    output::write_all(1, format!("listening {address}\n").as_bytes());
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut block = [0_u8; 4096];
        // A client that says nothing is no reason to stop serving the next one.
        let Ok(_read) = stream.read(&mut block) else {
            continue;
        };
        pause_for(delay_ms);
        let written = status_file
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok());
        let status = written
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(status);
        let answer =
            format!("HTTP/1.1 {status} Fixture\r\nContent-Length: 3\r\nConnection: close\r\n\r\nup\n");
        let _gone = stream.write_all(answer.as_bytes());
    }
    Ok(0)
}
