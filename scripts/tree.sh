# SPDX-License-Identifier: Apache-2.0
# Sourced by scripts/format and scripts/lint: `tree PATTERN...` lists what belongs to the tree, tracked files and new ones that git
# does not ignore. Where there is no usable git (a source archive, a linked work tree seen from inside the root) it is every file
# outside build/.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
tree() {
  if git rev-parse HEAD >/dev/null 2>&1; then
    git ls-files --cached --others --exclude-standard -- "$@"
  else
    local p
    find . -name build -prune -o -name .git -prune -o -type f -print | sed 's,^\./,,' | sort | while read -r f; do
      # shellcheck disable=SC2053 # patterns, as git understands them
      for p in "$@"; do [[ $f == $p || $f == $p/* || $p == . ]] && { echo "$f"; break; }; done
    done
  fi | while read -r f; do [ -f "$f" ] && echo "$f"; done
  return 0
}
