; The zone that the two nodes answer themselves: /etc/gdnsd/zones/lb.example.com (the name of the file
; is that of the zone). Whoever has example.com delegates it once, with ns1 and ns2 as glue:
;   lb.example.com.      NS     ns1.lb.example.com.
;   lb.example.com.      NS     ns2.lb.example.com.
;   ns1.lb.example.com.  A      10.0.0.2   ; and AAAA 2001:db8::2
;   ns2.lb.example.com.  A      10.0.0.3   ; and AAAA 2001:db8::3
; and names of its own point in here, where their clients need not know:
;   db.example.com.      CNAME  www.lb.example.com.
; After a change: a higher serial, then `gdnsdctl reload-zones`.

@     60    SOA   ns1 hostmaster (
                  1       ; serial
                  7200    ; refresh
                  30M     ; retry
                  3D      ; expire
                  60 )    ; how long "there is no such name" may be kept
@     3600  NS    ns1
@     3600  NS    ns2

; Fixed: names of name servers are never taken out. A resolver that gets no answer from one asks the
; other, and remembers.
ns1   3600  A     10.0.0.2
ns1   3600  AAAA  2001:db8::2
ns2   3600  A     10.0.0.3
ns2   3600  AAAA  2001:db8::3

; 5 s: resolvers keep an answer for so long, on top of the 6 s until gdnsd notices. Shorter is not
; worth it (gdnsd has 5 s as its floor, min_ttl), longer makes the move that much slower. MAX/MIN are
; both written, so that gdnsd does not change it by the state of its checks.
www   5/5   DYNA  multifo!www
one   5/5   DYNA  simplefo!one
