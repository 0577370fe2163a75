# How long it takes until all lists are complete, over the hosts: docs/performance.md. From segment.txt, what make segment
# printed.
set terminal svg size 720,420 enhanced background "#ffffff" font "Helvetica,Arial,sans-serif,16"
set border 3 lc rgb "#444444"
set tics nomirror out
set xlabel "hosts on the segment, all started at once"
set ylabel "seconds until all lists are complete"
set logscale xy
set xtics (2, 10, 30, 100, 253)
set ytics ("0.01" 0.01, "0.1" 0.1, "1" 1, "10" 10)
set xrange [1.5:350]
set yrange [0.004:20]
set grid ytics lc rgb "#dddddd"
set key left top Left reverse samplen 2

plot "docs/pictures/segment.txt" skip 2 using 1:3 with linespoints lw 2 pt 5 ps 0.6 lc rgb "#a03020" \
       title "a fifth of all packets lost", \
     "" skip 2 using 1:3:(sprintf("%.2f", $3)) with labels offset 0,0.8 tc rgb "#a03020" notitle, \
     "" skip 2 using 1:2 with linespoints lw 2 pt 7 ps 0.6 lc rgb "#30587f" title "nothing lost", \
     "" skip 2 using 1:2:(sprintf("%.2f", $2)) with labels offset 0,-0.8 tc rgb "#30587f" notitle
