# Completion for bash of the programs of xtrkit: "source" it, or put it in
# /usr/share/bash-completion/completions under the name of each program. What there
# is to complete it takes from what the programs say with -help, so it is never out of date.
_xtrkit() {
	local program=$1 word=$2 previous=$3 help options
	help=$("$program" ${COMP_WORDS[1]:+$([[ $COMP_CWORD -gt 1 && ${COMP_WORDS[1]} != -* ]] && printf %s "${COMP_WORDS[1]}")} -help 2>&1)
	# An option that wants a value: "  -f FILE", the value's kind in capitals.
	case $(sed -n "s/^  $previous \([A-Z]*\).*/\1/p" <<<"$help") in
	'') ;;
	FILE | SOCKET | DIR)
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		return
		;;
	*) return ;;
	esac
	options=$(sed -n 's/^  \(-[a-z0-9-]*\).*/\1/p' <<<"$help")
	if [[ $COMP_CWORD -eq 1 ]]; then
		# Commands: the words behind the name in lines of the usage.
		options+=" $(sed -n "s/^\(Usage:\|      \) ${program##*/} \([a-z][a-z-]*\).*/\2/p" <<<"$help")"
	fi
	mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
	[[ $word == -* || ${#COMPREPLY[@]} -gt 0 ]] || mapfile -t COMPREPLY < <(compgen -f -- "$word")
}
complete -F _xtrkit lispmn lispms lispconf lig lispdump
