# SPDX-License-Identifier: Apache-2.0
"""The layer check finds what it must: each case plants one offence in a small tree and expects its line."""
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/check_layers.py"
LAYERS = """# comment
base: : fmt
wire: base : protozero
crypto: base : openssl
loop: base : uv
store: base : sqlite
router: base wire loop :
sdk: base wire :
agent: base sdk-abi : json
"""


def run(root):
    done = subprocess.run([sys.executable, SCRIPT, root], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def plant(root, path, text, layers=LAYERS):
    for folder in ("base", "wire", "crypto", "loop", "store", "router", "sdk", "agent"):
        (root / "src" / folder).mkdir(parents=True, exist_ok=True)
    (root / "src/base/bytes.h").write_text("")
    (root / "cmake").mkdir()
    (root / "cmake/layers.txt").write_text(layers)
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("path, text, what", [
    ("src/base/a.cc", '#include "wire/frame.h"\n', "base may not include wire"),
    ("src/wire/a.h", '#include "crypto/key.h"\n', "wire may not include crypto"),
    ("src/wire/a_test.cc", '#include "crypto/key.h"\n', "wire may not include crypto"),
    ("src/router/a.cc", '\n\n#  include <openssl/ssl.h>\n', "a.cc:3: router may not include <openssl/ssl.h>"),
    ("src/router/a.cc", "#include <uv.h>\n", "router may not include <uv.h>"),
    ("src/router/a.cc", "#include <sqlite3.h>\n", "router may not include <sqlite3.h>"),
    ("src/store/a.cc", "#include <sqlite3.h>\n", "only under src/store/sqlite/"),
    ("src/agent/a.cc", '#include "sdk/sdk.h"\n', "agent may not include sdk"),
    ("src/agent/a.cc", "#include <boost/asio.hpp>\n", "forbidden"),
    ("src/agent/a.cc", "#include <boost/url.hpp>\n", "of Boost only boost/json"),
    ("src/wire/a.cc", "#include <boost/json.hpp>\n", "wire may not include <boost/json.hpp>"),
    ("src/router/a.cc", "#include <sally/sally.h>\n", "router may not include <sally/sally.h>"),
    ("src/base/a.cc", "#include <iostream>\n", "<iostream> is forbidden"),
    ("src/base/a.h", "#include <regex>\n", "<regex> is forbidden"),
    ("include/sally/a.h", "#include <locale>\n", "<locale> is forbidden"),
    ("src/base/a.h", "#include <fmt/format.h>\n", "in .cc files only"),
    ("src/base/a.cc", "#include <gtest/gtest.h>\n", "in tests only"),
    ("src/base/a.cc", '#include "bytes.h"\n', "write the path from src/"),
    ("src/base/a.cc", '#include "../wire/x.h"\n', "write the path from src/"),
    ("src/base/a.cc", "#include <base/bytes.h>\n", "is ours"),
    ("src/base/a.cc", "void f() { throw 1; }\n", "throws nothing"),
    ("src/base/a.cc", 'auto s = std::format("{}", 1);\n', "std::format"),
    ("src/base/a.cc", 'int r = system("ls");\n', "unsafe function"),
    ("src/base/a_test.cc", "void f() { std::this_thread::sleep_for(1s); }\n", "tests do not sleep"),
    ("tests/sim/a.cc", "void f() { usleep(5); }\n", "tests do not sleep"),
    ("tests/sim/a.cc", "void f() { usleep(5); }  // NOLINT(sally-sleep)\n", "tests do not sleep"),
    ("src/base/a.cc", "// TODO later\n", "finish it"),
    ("src/base/a.cc", "int x;  // NOLINT\n", "must name its check"),
    ("src/other/a.cc", "\n", "not in cmake/layers.txt"),
])
def test_offences(tmp_path, path, text, what):
    plant(tmp_path, path, text)
    code, out = run(tmp_path)
    assert code == 1
    assert what in out


@pytest.mark.parametrize("path, text", [
    ("src/router/a.cc", '#include "router/a.h"\n#include "wire/frame.h"\n#include <vector>\n'),
    ("src/crypto/a.cc", "#include <openssl/evp.h>\n"),
    ("src/store/sqlite/a.cc", "#include <sqlite3.h>\n"),
    ("src/wire/coding.h", "#include <protozero/pbf_reader.hpp>\n"),
    ("src/agent/a.cc", "#include <sally/sally.h>\n#include <boost/json.hpp>\n"),
    ("src/base/a.cc", '// std::cout, throw\nauto s = "system(1) throw";\nvoid f() noexcept;\n'),
    ("src/base/a_test.cc", "#include <gtest/gtest.h>\n"),
    ("src/base/a.cc", "int x;  // NOLINT(bugprone-x): why\n"),
    ("src/base/a_test.cc", "void f() { usleep(5); }  // NOLINT(sally-sleep): a real moment\n"),
])
def test_what_is_allowed(tmp_path, path, text):
    plant(tmp_path, path, text)
    code, out = run(tmp_path)
    assert code == 0, out


@pytest.mark.parametrize("layers, what", [
    (LAYERS.replace("router: base wire loop :", "router: base store :"), "router reaches store"),
    (LAYERS.replace("router: base wire loop :", "router: base agent :").replace("agent: base sdk-abi", "agent: base store"),
     "router uses agent"),
    (LAYERS.replace("sdk: base wire :", "sdk: base store :"), "agent reaches store"),
])
def test_the_table_itself(tmp_path, layers, what):
    plant(tmp_path, "src/base/a.cc", "\n", layers)
    code, out = run(tmp_path)
    assert code == 1
    assert what in out
