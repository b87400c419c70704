"""servers.py - peers that are servers: started on random loopback ports with
data of their own, stopped by pid. A server that is not installed is None."""
import glob
import os
import pwd
import shutil
import socket
import subprocess
import time


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def is_listening(port, tries=200):
    for _ in range(tries):
        with socket.socket() as s:
            if s.connect_ex(('127.0.0.1', port)) == 0:
                return True
        time.sleep(0.05)
    return False


class Server:
    """Runs until close(); `port` is where it listens."""

    def __init__(self, command, port, **how):
        self.port = port
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL, **how)
        if not is_listening(port):
            self.close()
            raise RuntimeError(f'{command[0]} does not listen')

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def redis(folder):
    if not shutil.which('redis-server') or not shutil.which('redis-benchmark'):
        return None
    port = free_port()
    return Server(
        ['redis-server', '--port', str(port), '--bind', '127.0.0.1',
         '--dir', folder, '--appendonly', 'yes', '--appendfsync', 'always',
         '--save', ''], port)


def beanstalkd(folder):
    if not shutil.which('beanstalkd'):
        return None
    port = free_port()
    return Server(['beanstalkd', '-l', '127.0.0.1', '-p', str(port),
                   '-b', folder, '-f0'], port)


def postgres_bin(name):
    """The newest version's program, or None."""
    found = sorted(glob.glob(f'/usr/lib/postgresql/*/bin/{name}'))
    return found[-1] if found else shutil.which(name)


def unprivileged(folder):
    """How to run as another user than root: PostgreSQL refuses root."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam('nobody')
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {'user': user.pw_uid, 'group': user.pw_gid, 'extra_groups': []}


def postgres(folder):
    if not postgres_bin('postgres') or not postgres_bin('pgbench'):
        return None
    user = unprivileged(folder)
    data = os.path.join(folder, 'data')
    subprocess.run(
        [postgres_bin('initdb'), '-D', data, '-U', 'bench', '-A', 'trust',
         '--no-sync'], check=True, stdout=subprocess.DEVNULL, cwd=folder,
        **user)
    port = free_port()
    server = Server(
        [postgres_bin('postgres'), '-D', data, '-p', str(port),
         '-c', 'listen_addresses=127.0.0.1', '-c', 'max_connections=200',
         '-c', f'unix_socket_directories={folder}'], port, cwd=folder, **user)
    server.folder = folder
    for _ in range(100):
        if sql(server, 'SELECT 1'):
            break
        time.sleep(0.1)
    sql(server, '''CREATE TABLE queue(
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        kind text NOT NULL, status text NOT NULL DEFAULT 'pending',
        due timestamptz NOT NULL DEFAULT now(), owner int,
        payload text NOT NULL);
        CREATE INDEX ready ON queue(due, id) WHERE status = 'pending';
        CREATE INDEX mine ON queue(owner) WHERE status = 'taken';''')
    return server


def address(server):
    return ['-h', '127.0.0.1', '-p', str(server.port), '-U', 'bench',
            '-d', 'postgres']


def sql(server, text):
    return subprocess.run(
        [postgres_bin('psql'), *address(server), '-qAtc', text],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        check=False).stdout


def pgbench(server, script, clients, seconds):
    """Transactions a second of a script."""
    path = os.path.join(server.folder, 'script.sql')
    with open(path, 'w', encoding='utf-8') as f:
        f.write(script)
    out = subprocess.run(
        [postgres_bin('pgbench'), *address(server), '-n', '-M', 'prepared',
         '-f', path, '-c', str(clients), '-j', str(min(clients, 2)),
         '-T', str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        check=True).stdout
    for line in out.splitlines():
        if line.startswith('tps'):
            return float(line.split('=')[1].split()[0])
    raise RuntimeError('pgbench reports no tps')
