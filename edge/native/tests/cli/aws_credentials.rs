//! Credentials of AWS: where they are found, and what is said where they are not.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made ends its test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::support::{Place, SOON};

/// A table, and nothing that would open it.
fn without_credentials() -> Place {
    let mut place = Place::on_table();
    for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        place.unset(variable);
    }
    let home = place.path("home").display().to_string();
    place.set("HOME", &home);
    place
}

/// Gives credentials to whoever asks; the paths that were asked for.
fn metadata(answer: fn(&str) -> String) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, paths) = mpsc::channel();
    // The thread ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if let Ok(line) = respond(stream, answer) {
                let _ = asked.send(line);
            }
        }
    });
    (url, paths)
}

/// Answers one request; its first line.
fn respond(mut stream: TcpStream, answer: fn(&str) -> String) -> std::io::Result<String> {
    stream.set_read_timeout(Some(SOON))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut line) = (String::new(), String::new());
    reader.read_line(&mut first)?;
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let body = answer(&first);
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-aws-ec2-metadata-token-ttl-seconds: 600\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(first)
}

fn keys() -> String {
    r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"AKIAROLE","SecretAccessKey":"hunter2","Token":"token","Expiration":"2100-01-01T00:00:00Z","LastUpdated":"2026-01-01T00:00:00Z"}"#.to_owned()
}

#[test]
fn a_containers_role_and_a_shared_file_are_found() {
    let mut place = without_credentials();
    let (url, paths) = metadata(|_| keys());
    place.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{url}/role"));
    place.run(&["keys", "list"]).expect(0);
    assert!(paths.recv_timeout(SOON).unwrap().starts_with("GET /role "));

    let mut place = without_credentials();
    let file = place.write("credentials", "[default]\naws_access_key_id = a\naws_secret_access_key = b\n");
    place.set("AWS_SHARED_CREDENTIALS_FILE", &file);
    place.run(&["keys", "list"]).expect(0);
}

#[test]
fn an_instances_role_is_found_by_the_second_version_of_its_service() {
    let mut place = without_credentials();
    let (url, paths) = metadata(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        ["PUT", "/latest/api/token", ..] => "session".to_owned(),
        ["GET", path, ..] if path.ends_with("/role-of-the-instance") => keys(),
        _ => "role-of-the-instance".to_owned(),
    });
    place.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url);
    place.run(&["keys", "list"]).expect(0);
    assert!(paths.recv_timeout(SOON).unwrap().starts_with("PUT /latest/api/token "));
}

#[test]
fn their_absence_is_said_within_seconds() {
    // Takes connections, and nobody ever reads from them: as where a firewall swallows what is sent.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut place = without_credentials();
    place.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &format!("http://{}", silent.local_addr().unwrap()));
    let began = Instant::now();
    let ran = place.run(&["up", "--listen", "127.0.0.1:0"]).expect(1);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(ran.stderr.contains("there are no AWS credentials for the table fleet"), "{ran:#?}");
    assert!(ran.stderr.contains("AWS_ACCESS_KEY_ID"), "{ran:#?}");
}
