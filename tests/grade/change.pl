# For wrong.sh and unfinished.sh, by perl -0777 -p: puts NEW in the place of OLD, both from the environment. OLD must be
# in the file once. Where it has a blank, the file may have any white space.

my ($old, $new) = @ENV{"OLD", "NEW"};
my $words = join "\\s+", map quotemeta, split " ", $old;
$words = "(?<=\\s)$words" if $old =~ /^\s/;
$words = "$words(?=\\s)" if $old =~ /\s$/;
my $found = () = /$words/g;
die "\"$old\" is there $found times\n" if $found != 1;
s/$words/$new/;
