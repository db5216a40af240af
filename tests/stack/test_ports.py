import socket

from stack.ports import HOST, ephemeral_range, free_port, is_free


def test_outside_the_ephemeral_range_and_never_twice():
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert not set(ports) & set(ephemeral_range())


def test_a_port_that_is_listened_on_is_not_free():
    port = free_port()
    with socket.create_server((HOST, port)):
        assert not is_free(port)
    assert is_free(port)


def test_a_port_is_free_again_while_its_last_connection_lingers():
    port = free_port()
    with socket.create_server((HOST, port)) as server, socket.create_connection((HOST, port)) as client:
        accepted, _ = server.accept()
        # The side that closes first keeps the port in TIME_WAIT.
        accepted.close()
        client.recv(1)
    assert is_free(port)
