# Heartbeats a second of a whole segment, over its users: docs/performance.md. From crowd.txt, what make crowd printed.
set terminal svg size 720,420 enhanced background "#ffffff" font "Helvetica,Arial,sans-serif,16"
set border 3 lc rgb "#444444"
set tics nomirror out
set xlabel "users on the segment"
set ylabel "heartbeats a second, of all together"
set xrange [0:1050]
set yrange [0:220]
set grid ytics lc rgb "#dddddd"
unset key
set label "before: one from each every 5 s" at 560,150 right tc rgb "#a03020"
set label "now: 20 on average, however many there are" at 1000,40 right tc rgb "#30587f"

# Only the rows without loss: the number of users, then what they would send every 5 s, and what they did send. The other
# rows are missing: as mere NaN, they would break the line.
set datafile missing NaN
kept(lost, value) = lost == 0 ? value : NaN
named(users, lost, value) = lost == 0 && users > 100 ? sprintf("%.0f", value) : ""
plot "docs/pictures/crowd.txt" skip 2 using 1:(kept($2, $10)) with linespoints lw 2 pt 7 ps 0.6 lc rgb "#a03020", \
     "" skip 2 using 1:10:(named($1, $2, $10)) with labels offset 0,0.8 tc rgb "#a03020", \
     "" skip 2 using 1:(kept($2, $11)) with linespoints lw 2 pt 7 ps 0.6 lc rgb "#30587f", \
     "" skip 2 using 1:11:(named($1, $2, $11)) with labels offset 0,-0.8 tc rgb "#30587f"
