"""Stands before a server with a certificate of its own: what comes over TLS goes on as it is, and back.

    tls_front.py CERTIFICATE KEY PORT     prints the port it listens on, and carries connections until its stdin ends
    tls_front.py CERTIFICATE check PORT   asks the front for /health as one who trusts the certificate; prints the status
"""

import http.client
import socket
import ssl
import sys
import threading


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def carry(plain, context, port):
    try:
        client = context.wrap_socket(plain, server_side=True)
    except OSError:
        # A client that will not have the certificate says so in the handshake.
        plain.close()
        return
    server = socket.create_connection(("127.0.0.1", port))
    threading.Thread(target=copy, args=(server, client), daemon=True).start()
    copy(client, server)


def front(certificate, key, port):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)

    def serve():
        while True:
            plain, _ = listener.accept()
            threading.Thread(target=carry, args=(plain, context, port), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    sys.stdin.read()


def check(certificate, port):
    context = ssl.create_default_context(cafile=certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    connection.request("GET", "/health")
    print(connection.getresponse().status)


certificate, what, port = sys.argv[1:]
if what == "check":
    check(certificate, int(port))
else:
    front(certificate, what, int(port))
