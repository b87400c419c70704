"""npm.py - the peers from npm, installed once into the build folder."""
import json
import os
import shutil
import subprocess

PACKAGES = ['plainjob', 'better-sqlite3', 'bullmq', 'ioredis', 'lru-cache']


def installed(folder):
    """The folder, or None where they cannot be installed."""
    done = os.path.join(folder, 'installed')
    if os.path.exists(done):
        return folder
    if not shutil.which('npm') or not shutil.which('node'):
        return None
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, 'package.json'), 'w',
              encoding='utf-8') as f:
        # newer versions of npm run only the scripts named here
        json.dump({'private': True, 'type': 'module',
                   'allowScripts': {'better-sqlite3': True}}, f)
    print('installing with npm: ' + ' '.join(PACKAGES), flush=True)
    with open(os.path.join(folder, 'log'), 'w', encoding='utf-8') as log:
        try:
            subprocess.run(
                ['npm', 'install', '--no-audit', '--no-fund', *PACKAGES],
                cwd=folder, stdout=log, stderr=log, timeout=600, check=True)
            subprocess.run(
                ['node', '-e', 'new (require("better-sqlite3"))(":memory:")'],
                cwd=folder, stdout=log, stderr=log, timeout=60, check=True)
        except (subprocess.SubprocessError, OSError):
            return None
    with open(done, 'w', encoding='utf-8'):
        pass
    return folder
