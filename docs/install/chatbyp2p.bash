# What bash completes behind "chatbyp2p": options, and their values where those are known.
# `make install` puts it where the package bash-completion finds it; without that package, source it.

_chatbyp2p() {
  local word=$2 before=$3 words=''
  COMPREPLY=()
  # Bash takes "--accept=al" for three words.
  if [ "$word" = = ]; then
    word=''
  elif [ "$before" = = ]; then
    before=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  case $before in
    --accept) words='ask always never' ;;
    --scan) words='on off' ;;
    --interface) words=$(ls /sys/class/net 2>/dev/null || ifconfig -l) ;;
    --dir) mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
    --trace) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    --name | --group | --port) ;;
    *) words=$("$1" --help | sed -n 's/^  \(-[-a-z]*\).*/\1/p') ;;
  esac
  [ -z "$words" ] || mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _chatbyp2p chatbyp2p
