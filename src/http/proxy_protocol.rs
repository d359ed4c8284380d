//! The PROXY protocol, version 2: the line before the first byte in which a proxy says whose connection it passes on.
//!
//! <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>, section 2.2.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The most bytes after the first sixteen; addresses take 36, and a proxy may add what it knows of TLS.
const MOST: usize = 4096;

/// Reads the header; tells whose connection it is, or nothing where it is the proxy's own.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    let [.., command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if head[..12] != SIGNATURE || length > MOST {
        return Err(broken());
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    match command {
        LOCAL => Ok(None),
        PROXY => source(family, &rest),
        _ => Err(broken()),
    }
}

/// The source; a family without addresses of the Internet has none.
fn source(family: u8, rest: &[u8]) -> io::Result<Option<SocketAddr>> {
    const TCP4: u8 = 0x11;
    const TCP6: u8 = 0x21;
    let port = |at: usize| rest.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    let source: Option<(IpAddr, u16)> = match family {
        TCP4 => rest.first_chunk::<4>().map(|source| Ipv4Addr::from(*source).into()).zip(port(8)),
        TCP6 => rest.first_chunk::<16>().map(|source| Ipv6Addr::from(*source).into()).zip(port(32)),
        _ => return Ok(None),
    };
    source.map(|source| Some(SocketAddr::from(source))).ok_or_else(broken)
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no header of the PROXY protocol, version 2")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    async fn said(bytes: &[u8]) -> io::Result<Option<SocketAddr>> {
        read(&mut &bytes[..]).await
    }

    #[tokio::test]
    async fn a_header_says_whose_connection_it_is() {
        let four = [1, 2, 3, 4, 127, 0, 0, 1, 0x12, 0x34, 0, 80];
        let with_more = [&four[..], &[4, 0, 1, 0]].concat(); // a TLV nobody asked for
        for rest in [&four[..], &with_more] {
            let source = said(&header(0x21, 0x11, rest)).await.unwrap();
            assert_eq!(source, Some("1.2.3.4:4660".parse().unwrap()));
        }
        let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let six = [&address.octets()[..], &[0; 16], &[0, 7, 0, 80]].concat();
        let source = said(&header(0x21, 0x21, &six)).await.unwrap();
        assert_eq!(source, Some("[2001:db8::1]:7".parse().unwrap()));
        assert_eq!(said(&header(0x20, 0x11, &four)).await.unwrap(), None, "a check of health");
        assert_eq!(said(&header(0x21, 0x00, &[])).await.unwrap(), None, "it cannot say");
    }

    #[tokio::test]
    async fn what_is_no_header_is_an_error() {
        let four = [1, 2, 3, 4, 127, 0, 0, 1, 0x12, 0x34, 0, 80];
        let mut wrong = header(0x21, 0x11, &four);
        wrong[0] = b'G';
        for bad in [
            wrong,
            header(0x11, 0x11, &four),
            header(0x22, 0x11, &four),
            header(0x21, 0x11, &four[..9]),
            header(0x21, 0x21, &four),
            header(0x21, 0x11, &[0; MOST + 1]),
            header(0x21, 0x11, &four)[..20].to_vec(),
            b"PROXY TCP4 1.2.3.4 127.0.0.1 1 2\r\n".to_vec(),
        ] {
            assert!(said(&bad).await.is_err(), "{bad:?}");
        }
    }
}
