//! Ports: from hosts to listening sockets, one for each shard.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel queues per listener until they are accepted.
const BACKLOG: i32 = 1024;
/// How long a port in use is tried, and how often.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
const BIND_PAUSE: Duration = Duration::from_millis(10);

/// The address of a host, which is a number or a name. All addresses of IPv4 mean those of IPv6 as well where there are
/// any, as in the reference.
///
/// # Errors
/// When the name does not resolve.
pub fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let mut addresses = (host, port).to_socket_addrs()?;
    let address = addresses.next().ok_or(io::ErrorKind::NotFound)?;
    let all = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    let is_all = address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Ok(if is_all && socket(all).is_ok() { all } else { address })
}

/// `count` listening sockets on the same address, tried again for a moment while the address is in use: the kernel
/// gives the sockets of a process that was killed free only when it has torn down its rings, milliseconds after the
/// process is gone.
///
/// # Errors
/// When the address cannot be had.
pub fn bind_patiently(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match bind(address, count) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(BIND_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// One listening socket per shard on the same address.
///
/// A first socket without SO_REUSEPORT finds out whether the port is free: with the option alone two servers of one
/// user could share a port without noticing. It does not listen: who connected to it would be turned away.
fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let socket = |address: SocketAddr, shared: bool| -> io::Result<TcpListener> {
        let socket = socket(address)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&address.into())?;
        if shared {
            socket.set_nonblocking(true)?;
            socket.listen(BACKLOG)?;
        }
        Ok(socket.into())
    };
    let probe = socket(address, false)?;
    let address = probe.local_addr()?;
    drop(probe);
    (0..count).map(|_| socket(address, true)).collect()
}

/// A socket that is not bound yet. One for all addresses of IPv6 takes connections of IPv4 as well.
fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    Ok(socket)
}
