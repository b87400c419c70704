"""gateway.py - wrk, then the gateway or nginx, then an nginx that responds with
204.

With 64 connections the server that is measured is on CPU 0, wrk and the server
behind it on CPU 1; with one connection all are on CPU 0. The 204 measured
without a proxy is on CPU 0 as well."""
import os
import re
import shutil
import subprocess
import uuid

from servers import Server, free_port

NGINX = '''worker_processes 1; daemon off; pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  {upstream}
  server {{ listen 127.0.0.1:{port}; location / {{ {what} }} }}
}}
'''

# A body of 300 bytes, as everywhere. Modes: fresh, each request has a key of
# its own; one, all have the same; none.
SCRIPT = '''local mode, run, n, id = nil, nil, 0, 0
local body = '{"text":"' .. string.rep('x', 289) .. '"}'
local threads = 0
function setup(thread) threads = threads + 1; thread:set('id', threads) end
local head = {['Content-Type'] = 'application/json',
  Authorization = 'Bearer bench'}
local ready
function init(args)
  mode, run = args[1], args[2]
  if mode == 'one' then head['Idempotency-Key'] = run end
  ready = wrk.format('POST', '/orders', head, body)
end
function request()
  if mode ~= 'fresh' then return ready end
  n = n + 1
  head['Idempotency-Key'] = run .. '-' .. n
  return wrk.format('POST', '/orders', head, body)
end
'''


def found():
    return (shutil.which('nginx') or shutil.which('nginx', path='/usr/sbin')) \
        if shutil.which('wrk') and shutil.which('taskset') else None


def pinned(cpu, command):
    return ['taskset', '-c', str(cpu), *command]


def nginx(lab, name, cpu, behind=None):
    folder, port = lab.kept(name), free_port()
    upstream, what = '', 'return 204;'
    if behind:
        upstream = (f'upstream behind {{ server 127.0.0.1:{behind}; '
                    'keepalive 128; keepalive_requests 1000000000; }')
        what = ('proxy_pass http://behind; proxy_http_version 1.1;'
                ' proxy_set_header Connection "";')
    path = os.path.join(folder, 'conf')
    with open(path, 'w', encoding='utf-8') as f:
        f.write(NGINX.format(folder=folder, port=port, upstream=upstream,
                             what=what))
    return Server(pinned(cpu, [found(), '-p', folder, '-c', path,
                               '-e', os.path.join(folder, 'error.log')]), port)


def gate(lab, cpu, behind, store):
    port = free_port()
    return Server(pinned(cpu, [
        lab.command, 'gate', '--listen', f'127.0.0.1:{port}', '--upstream',
        f'http://127.0.0.1:{behind}', '--store', store]), port)


def running(lab, name, cpu, behind_cpu=1):
    """direct, proxy, memory or file: started once, on that CPU."""
    key = f'gateway-{name}-{cpu}-{behind_cpu}'
    if key in lab.running:
        return lab.running[key]
    behind = name not in ('behind', 'direct') and \
        running(lab, 'behind', behind_cpu).port
    if name in ('behind', 'direct'):
        server = nginx(lab, key, cpu)
    elif name == 'proxy':
        server = nginx(lab, key, cpu, behind)
    else:
        store = 'memory' if name == 'memory' else \
            os.path.join(lab.kept(key), 'db')
        server = gate(lab, cpu, behind, store)
    lab.running[key] = server
    return server


def wrk(lab, port, cpu, connections, mode, seconds):
    script = os.path.join(lab.work, 'wrk.lua')
    if not os.path.exists(script):
        with open(script, 'w', encoding='utf-8') as f:
            f.write(SCRIPT)
    out = subprocess.run(
        pinned(cpu, ['wrk', '-t1', f'-c{connections}', f'-d{seconds}s',
                     '--latency', '-s', script, f'http://127.0.0.1:{port}',
                     '--', mode, uuid.uuid4().hex]),
        stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout
    if 'Non-2xx' in out or 'Socket errors' in out:
        raise RuntimeError(f'wrk, {mode}: {out}')
    p50 = re.search(r'50%\s+([\d.]+)(us|ms|s)', out)
    return {'per_s': float(re.search(r'Requests/sec:\s+([\d.]+)', out)[1]),
            'p50_us': float(p50[1]) *
            {'us': 1, 'ms': 1000, 's': 1000000}[p50[2]]}


def cpu_seconds(pid):
    """CPU seconds that a process and its children have used."""
    with open(f'/proc/{pid}/task/{pid}/children', encoding='utf-8') as f:
        used = sum(cpu_seconds(int(child)) for child in f.read().split())
    with open(f'/proc/{pid}/stat', encoding='utf-8') as f:
        user, system = f.read().rsplit(')', 1)[1].split()[11:13]
    return used + (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')


def rate(name, mode):
    """64 connections. per_cpu_s: by the CPU time of the measured server."""
    def measure(lab):
        if not found():
            return None
        server = running(lab, name, 0)
        before = cpu_seconds(server.process.pid)
        figures = wrk(lab, server.port, 1, 64, mode, 1)
        used = max(cpu_seconds(server.process.pid) - before, 0.01)
        return {**figures, 'per_cpu_s': figures['per_s'] / used}
    return measure


LAST = {}


def latency(name, mode):
    """One connection; added_us: compared with the last of 'direct'."""
    def measure(lab):
        if not found():
            return None
        figures = wrk(lab, running(lab, name, 0, 0).port, 0, 1, mode, 1)
        if name == 'direct':
            LAST[mode] = figures['p50_us']
        figures['added_us'] = max(figures['p50_us'] - LAST[mode], 0.1)
        return figures
    return measure
