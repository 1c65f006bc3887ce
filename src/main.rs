//! The broker's executable: arguments, exit codes.
fn main() {
    let mut options = leat::config::Options::default();
    let args: Vec<String> = std::env::args().collect();
    let _ = &args;
    if let Ok(leat::cli::Command::Run { options: parsed, .. }) = leat::cli::parse(args[1..].iter().map(Into::into)) { options = *parsed; }
    let server = leat::server::Server::start(&options).unwrap();
    eprintln!("listening on {}", server.address());
    loop { std::thread::park(); }
}
